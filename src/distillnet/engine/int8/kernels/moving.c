/* Moving what the planner could not place: other orders of channels, padding, parts of
 * concatenations that lie elsewhere already, and the border of zeros around a buffer.
 */

typedef struct {
    tensor x, y;
    int32_t value;         /* of padding */
    int32_t top, left;     /* where x begins in y; negative: what is cut off */
    const channel_index *index; /* channels to pick; NULL: all in their order */
    int32_t table;         /* of 256 bytes, in the weights, what each becomes; negative: itself */
} copying;

INLINE void run_copy(const copying *s, uint8_t *arena, const uint8_t *weights)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const int32_t from_y = row - s->top, from_x = at - s->left;
            uint8_t *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            if (from_y < 0 || from_y >= s->x.h || from_x < 0 || from_x >= s->x.w) {
                memset(y, s->value, (size_t)s->y.c);
                continue;
            }
            const uint8_t *x = arena + s->x.at + (ptrdiff_t)from_y * s->x.row +
                               (ptrdiff_t)from_x * s->x.pixel;
            if (s->index == NULL)
                memcpy(y, x, (size_t)s->y.c);
            else
                for (int32_t c = 0; c < s->y.c; c++)
                    y[c] = x[s->index[c]];
            for (int32_t c = 0; s->table >= 0 && c < s->y.c; c++)
                y[c] = weights[s->table + y[c]];
        }
}

/* (C, H, W), PyTorch's order, of a map. */
typedef struct {
    tensor x;
    int32_t y;
} flattening;

INLINE void run_flatten(const flattening *s, uint8_t *arena)
{
    uint8_t *y = arena + s->y;
    for (int32_t c = 0; c < s->x.c; c++)
        for (int32_t row = 0; row < s->x.h; row++)
            for (int32_t at = 0; at < s->x.w; at++)
                *y++ = arena[s->x.at + row * s->x.row + at * s->x.pixel + c];
}

/* Rows and columns picked. */
typedef struct {
    tensor x, y;
    const uint16_t *rows, *columns;
} sampling;

INLINE void run_sample(const sampling *s, uint8_t *arena)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++)
            memcpy(arena + s->y.at + row * s->y.row + at * s->y.pixel,
                   arena + s->x.at + s->rows[row] * s->x.row + s->columns[at] * s->x.pixel,
                   (size_t)s->y.c);
}

/* h and w are those inside. */
typedef struct {
    int32_t at, h, w, pixel, top, left, bottom, right;
    int32_t zero;
} border;

INLINE void run_border(const border *s, uint8_t *arena)
{
    const ptrdiff_t row = (ptrdiff_t)(s->left + s->w + s->right) * s->pixel;
    uint8_t *p = arena + s->at;
    memset(p, s->zero, (size_t)(s->top * row));
    p += s->top * row;
    for (int32_t y = 0; y < s->h; y++, p += row) {
        memset(p, s->zero, (size_t)(s->left * s->pixel));
        memset(p + (ptrdiff_t)(s->left + s->w) * s->pixel, s->zero,
               (size_t)(s->right * s->pixel));
    }
    memset(p, s->zero, (size_t)(s->bottom * row));
}

/* Normalised float32 (C, H, W) as runtimes take images -> bytes (H, W, C) in the arena. */
typedef struct {
    tensor y;
    int32_t zero;
    float per_step;
} reading;

/* Pixels as cameras give them, (H, W, C) bytes: what each byte becomes, by channel. */
typedef struct {
    int32_t table;    /* (C, 256) bytes, in the weights */
    int32_t reversed; /* whether the network has blue first where pixels have red */
} picturing;

INLINE void run_pixels(const picturing *s, const reading *to, rows r, uint8_t *arena,
                       const uint8_t *weights, const uint8_t *pixels)
{
    const tensor *const y = &to->y;
    pixels += (ptrdiff_t)r.first * y->w * y->c;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < y->w; at++, pixels += y->c) {
            uint8_t *const out = pixel_at(arena, y, r.out, row, at);
            for (int32_t c = 0; c < y->c; c++)
                out[c] = weights[s->table + 256 * c + pixels[s->reversed ? y->c - 1 - c : c]];
        }
}

INLINE void run_input(const reading *s, rows r, uint8_t *arena, const float *in)
{
    const float lo = (float)-s->zero, hi = (float)(255 - s->zero);
    for (int32_t c = 0; c < s->y.c; c++)
        for (int32_t row = r.first; row < r.end; row++) {
            const float *from = in + ((ptrdiff_t)c * s->y.h + row) * s->y.w;
            uint8_t *out = pixel_at(arena, &s->y, r.out, row, 0) + c;
            for (int32_t at = 0; at < s->y.w; at++, out += s->y.pixel) {
                const float steps = *from++ * s->per_step;
                const float some = steps > lo ? steps : lo; /* NaN becomes lo */
                *out = (uint8_t)((int32_t)rintf(some < hi ? some : hi) + s->zero);
            }
        }
}
