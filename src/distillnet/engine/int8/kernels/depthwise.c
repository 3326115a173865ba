/* Depthwise convolutions, one filter a channel, in blocks of DEPTH channels: bias[DEPTH],
 * multiplier[DEPTH], then [tap][DEPTH] bytes.
 */
#define DEPTH (BLOCK < 4 ? 4 : BLOCK)

typedef struct {
    tensor y;
    int32_t x; /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;
    int32_t rows, row_step, columns, column_step; /* of the kernel */
    output out;
} depthwise;

static void depthwise_place(const depthwise *s, const uint8_t *x, const uint8_t *w, uint8_t *y,
                            ptrdiff_t channels)
{
    int32_t sum[DEPTH], multipliers[DEPTH];
    memcpy(sum, w, sizeof sum);
    memcpy(multipliers, w + 4 * DEPTH, sizeof multipliers);
    w += 8 * DEPTH;
    for (int32_t r = 0; r < s->rows; r++)
        for (int32_t c = 0; c < s->columns; c++, w += DEPTH) {
            const uint8_t *tap = x + (ptrdiff_t)r * s->row_step + (ptrdiff_t)c * s->column_step;
            for (int32_t i = 0; i < DEPTH; i++)
                sum[i] += (int16_t)(tap[i] * (int8_t)w[i]);
        }
    uint8_t all[DEPTH];
    for (int32_t i = 0; i < DEPTH; i++)
        all[i] = (uint8_t)byte_of_sum(sum[i], multipliers[i], &s->out);
    if (channels >= DEPTH)
        memcpy(y, all, DEPTH);
    else
        for (ptrdiff_t i = 0; i < channels; i++)
            y[i] = all[i];
}

static void depthwise_row(const depthwise *s, const strip *part, uint8_t *arena,
                          const uint8_t *weights, int32_t row, int32_t x0, int32_t x1)
{
    const ptrdiff_t block = (ptrdiff_t)(s->rows * s->columns + 8) * DEPTH;
    const uint8_t *const x_row = arena + s->x + part->in + (ptrdiff_t)row * s->y_step;
    uint8_t *const y_row = arena + s->y.at + part->out + (ptrdiff_t)row * s->y.row;
    for (ptrdiff_t c = 0; c < part->channels; c += DEPTH)
        for (int32_t at = x0; at < x1; at++)
            depthwise_place(s, x_row + c + (ptrdiff_t)at * s->x_step,
                            weights + part->weights + c / DEPTH * block,
                            y_row + c + (ptrdiff_t)at * s->y.pixel, part->channels - c);
}

static void run_depthwise(const depthwise *s, const layer *l, uint8_t *arena, const uint8_t *weights)
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
        fill_strip(l, part, &s->y, arena, s->out.zero);
    }
}
