/* What each byte becomes by itself: constants of a channel, activations by a table, masks. */

typedef struct {
    tensor x, y;
    int32_t factors; /* of each channel and, after them, offsets, in the weights */
    int32_t x_zero;
    output out;
} affine;

INLINE void run_affine(const affine *s, rows r, uint8_t *arena, const uint8_t *weights)
{
    const uint8_t *const factors = weights + s->factors, *const offsets = factors + 4 * s->y.c;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *x = pixel_at(arena, &s->x, r.in, row, at);
            uint8_t *y = pixel_at(arena, &s->y, r.out, row, at);
            for (int32_t c = 0; c < s->y.c; c++) {
                const int32_t v =
                    (x[c] - s->x_zero) * word_at(factors + 4 * c) + word_at(offsets + 4 * c);
                y[c] = (uint8_t)bounded(rounded(v, s->out.shift) + s->out.zero, s->out.lo,
                                        s->out.hi);
            }
        }
}

typedef struct {
    tensor x, y;
    int32_t table; /* of 256 bytes, in the weights */
} activation;

INLINE void run_activation(const activation *s, rows r, uint8_t *arena, const uint8_t *weights)
{
    const uint8_t *const table = weights + s->table;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *x = pixel_at(arena, &s->x, r.in, row, at);
            uint8_t *y = pixel_at(arena, &s->y, r.out, row, at);
            for (int32_t c = 0; c < s->y.c; c++)
                y[c] = table[x[c]];
        }
}

typedef struct {
    tensor x, y;
    int32_t zero;
} masking;

INLINE void run_mask(const masking *s, const layer *l, uint8_t *arena)
{
    const uint16_t *bits = l->bits;
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *x =
                arena + s->x.at + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
            uint8_t *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            memmove(y, x, (size_t)s->y.c);
            for (int32_t c = 0; bits != NULL && c < s->y.c; c += WORD)
                keep_bits(y + c, *bits++, s->y.c - c, s->zero);
        }
}
