/* Sums and products of two maps. Steps of 0 repeat a value: gates of one value a channel, maps of
 * one channel.
 */

typedef struct {
    int32_t at, row, pixel, channel;
} operand;

typedef struct {
    operand a, b;
    tensor y;
    int32_t multiply;
    float lo, hi;
} binary;

static void run_binary(const binary *s, float *arena)
{
    const int32_t by_channel_a = s->a.channel, by_channel_b = s->b.channel;
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *a =
                arena + s->a.at + (ptrdiff_t)row * s->a.row + (ptrdiff_t)at * s->a.pixel;
            const float *b =
                arena + s->b.at + (ptrdiff_t)row * s->b.row + (ptrdiff_t)at * s->b.pixel;
            float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            for (int32_t c = 0; c < s->y.c; c += LANES) {
                const vec one = by_channel_a ? load(a + c) : splat(*a);
                const vec other = by_channel_b ? load(b + c) : splat(*b);
                const vec both = s->multiply ? one * other : one + other;
                store_some(y + c, clamp(both, s->lo, s->hi), s->y.c - c);
            }
        }
}
