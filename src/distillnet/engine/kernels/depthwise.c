/* Depthwise convolutions, one filter a channel: vectors lie over channels, and four pixels share
 * each weight that is loaded.
 */

#define DEPTHWISE_PIXELS 4

typedef struct {
    tensor y;
    int32_t x; /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;
    int32_t rows, row_step, columns, column_step; /* of the kernel */
    float lo, hi;
} depthwise;

#define DEPTHWISE_TILE(P)                                                                      \
    static void depthwise_##P(const depthwise *s, const float *x, const float *bias,           \
                              const float *w, float *y, ptrdiff_t channels,                    \
                              const uint16_t *bits, ptrdiff_t words, int lane)                 \
    {                                                                                          \
        vec sum[P];                                                                            \
        UNROLL for (int p = 0; p < (P); p++) sum[p] = load(bias);                              \
        for (int32_t r = 0; r < s->rows; r++)                                                  \
            for (int32_t c = 0; c < s->columns; c++, w += BLOCK) {                             \
                const float *tap = x + (ptrdiff_t)r * s->row_step +                            \
                                   (ptrdiff_t)c * s->column_step;                              \
                const vec weight = load(w);                                                    \
                UNROLL for (int p = 0; p < (P); p++)                                           \
                    sum[p] += load(tap + (ptrdiff_t)p * s->x_step) * weight;                   \
            }                                                                                  \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            sum[p] = clamp(sum[p], s->lo, s->hi);                                              \
        if (bits != NULL)                                                                      \
            UNROLL for (int p = 0; p < (P); p++)                                               \
                sum[p] = keep_lanes(sum[p], bits[p * words], lane);                            \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            store_some(y + (ptrdiff_t)p * s->y.pixel, sum[p], channels);                       \
    }
DEPTHWISE_TILE(1)
DEPTHWISE_TILE(4)
#undef DEPTHWISE_TILE

/* Places x0 to x1 of a row; `bits` are the words of the first of them, NULL where all is needed.
 * `weights` are of the strip, `biases`, too, where they are a mission's own. */
static void depthwise_row(const depthwise *s, const strip *part, rows r, float *arena,
                          const float *weights, const float *biases, int32_t row, int32_t x0,
                          int32_t x1, const uint16_t *bits)
{
    const ptrdiff_t block = (ptrdiff_t)(s->rows * s->columns + 1) * BLOCK;
    const ptrdiff_t words = (part->channels + BLOCK - 1) / BLOCK;
    const float *x_row = arena + ((ptrdiff_t)s->x + part->in + r.in + (ptrdiff_t)row * s->y_step);
    float *y_row = pixel_at(arena, &s->y, r.out, row, 0) + part->out;
    for (ptrdiff_t c = 0; c < part->channels; c += LANES) {
        const float *w = weights + c / BLOCK * block + c % BLOCK;
        const float *const bias = biases == NULL ? w : biases + c;
        const ptrdiff_t left = part->channels - c;
        const uint16_t *keep = bits == NULL ? NULL : bits + c / BLOCK;
        const int lane = (int)(c % BLOCK);
        int32_t at = x0;
        w += BLOCK;
        for (; at + DEPTHWISE_PIXELS <= x1; at += DEPTHWISE_PIXELS) {
            depthwise_4(s, x_row + c + (ptrdiff_t)at * s->x_step, bias, w,
                        y_row + c + (ptrdiff_t)at * s->y.pixel, left, keep, words, lane);
            keep = keep == NULL ? NULL : keep + DEPTHWISE_PIXELS * words;
        }
        for (; at < x1; at++) {
            depthwise_1(s, x_row + c + (ptrdiff_t)at * s->x_step, bias, w,
                        y_row + c + (ptrdiff_t)at * s->y.pixel, left, keep, words, lane);
            keep = keep == NULL ? NULL : keep + words;
        }
    }
}

static void run_depthwise(const depthwise *s, const layer *l, rows r, float *arena,
                          const float *weights)
{
    const float *biases = l->biases;
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const float *const w = (l->weights != NULL ? l->weights : weights) + part->weights;
        const ptrdiff_t words = (part->channels + BLOCK - 1) / BLOCK;
        const uint16_t *bits = part->bits < 0 ? NULL : l->bits + part->bits;
        const some_places some = places_in(l, part, &s->y, r);
        bits = bits == NULL ? NULL : bits + some.before * words;
        if (part->spans < 0)
            for (int32_t row = r.first; row < r.end; row++)
                depthwise_row(s, part, r, arena, w, biases, row, 0, s->y.w, NULL);
        for (const span *next = some.spans; next < some.end; next++) {
            const span at = *next;
            depthwise_row(s, part, r, arena, w, biases, at.y, at.x0, at.x1, bits);
            bits = bits == NULL ? NULL : bits + (at.x1 - at.x0) * words;
        }
        biases = biases == NULL ? NULL : biases + words * BLOCK;
        clear_strip(l, part, &s->y, r, arena);
    }
}
