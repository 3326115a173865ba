/* Sums and products of two maps. Steps of 0 repeat a value: gates of one value a channel, maps of
 * one channel.
 */

typedef struct {
    int32_t at, row, pixel, channel;
} operand;

typedef struct {
    operand a, b;
    tensor y;
    int32_t multiply, a_zero, b_zero, a_factor, b_factor;
    output out;
} binary;

static void run_binary(const binary *s, uint8_t *arena)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *a =
                arena + s->a.at + (ptrdiff_t)row * s->a.row + (ptrdiff_t)at * s->a.pixel;
            const uint8_t *b =
                arena + s->b.at + (ptrdiff_t)row * s->b.row + (ptrdiff_t)at * s->b.pixel;
            uint8_t *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            for (int32_t c = 0; c < s->y.c; c++) {
                const int32_t one = a[c * s->a.channel] - s->a_zero;
                const int32_t other = b[c * s->b.channel] - s->b_zero;
                const int32_t both = s->multiply ? one * other * s->a_factor
                                                 : one * s->a_factor + other * s->b_factor;
                y[c] = (uint8_t)bounded(rounded(both, s->out.shift) + s->out.zero, s->out.lo,
                                        s->out.hi);
            }
        }
}
