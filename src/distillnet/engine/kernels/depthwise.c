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
    static void depthwise_##P(const depthwise *s, const float *x, const float *w, float *y,    \
                              ptrdiff_t channels)                                              \
    {                                                                                          \
        vec sum[P];                                                                            \
        UNROLL for (int p = 0; p < (P); p++) sum[p] = load(w);                                 \
        w += BLOCK;                                                                            \
        for (int32_t r = 0; r < s->rows; r++)                                                  \
            for (int32_t c = 0; c < s->columns; c++, w += BLOCK) {                             \
                const float *tap = x + (ptrdiff_t)r * s->row_step +                            \
                                   (ptrdiff_t)c * s->column_step;                              \
                const vec weight = load(w);                                                    \
                UNROLL for (int p = 0; p < (P); p++)                                           \
                    sum[p] += load(tap + (ptrdiff_t)p * s->x_step) * weight;                   \
            }                                                                                  \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            store_some(y + (ptrdiff_t)p * s->y.pixel, clamp(sum[p], s->lo, s->hi), channels);  \
    }
DEPTHWISE_TILE(1)
DEPTHWISE_TILE(4)
#undef DEPTHWISE_TILE

static void depthwise_row(const depthwise *s, const strip *part, float *arena,
                           const float *weights, int32_t row, int32_t x0, int32_t x1)
{
    const ptrdiff_t block = (ptrdiff_t)(s->rows * s->columns + 1) * BLOCK;
    const float *x_row = arena + s->x + part->in + (ptrdiff_t)row * s->y_step;
    float *y_row = arena + s->y.at + part->out + (ptrdiff_t)row * s->y.row;
    for (ptrdiff_t c = 0; c < part->channels; c += LANES) {
        const float *w = weights + part->weights + c / BLOCK * block + c % BLOCK;
        const ptrdiff_t left = part->channels - c;
        int32_t at = x0;
        for (; at + DEPTHWISE_PIXELS <= x1; at += DEPTHWISE_PIXELS)
            depthwise_4(s, x_row + c + (ptrdiff_t)at * s->x_step, w,
                        y_row + c + (ptrdiff_t)at * s->y.pixel, left);
        for (; at < x1; at++)
            depthwise_1(s, x_row + c + (ptrdiff_t)at * s->x_step, w,
                        y_row + c + (ptrdiff_t)at * s->y.pixel, left);
    }
}

static void run_depthwise(const depthwise *s, const layer *l, float *arena, const float *weights)
{
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        if (part->spans < 0)
            for (int32_t row = 0; row < s->y.h; row++)
                depthwise_row(s, part, arena, weights, row, 0, s->y.w);
        for (int32_t j = 0; j < part->n_spans; j++) {
            const span *at = l->spans + part->spans + j;
            depthwise_row(s, part, arena, weights, at->y, at->x0, at->x1);
        }
        fill_strip(l, part, &s->y, arena);
    }
}
