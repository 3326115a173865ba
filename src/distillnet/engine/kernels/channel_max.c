/* The largest of all channels, place by place; at least `least`, which those that are gone had. */

typedef struct {
    tensor x, y;
    float least;
} channel_max;

static void run_channel_max(const channel_max *s, float *arena)
{
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x =
                arena + s->x.at + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
            float best = s->least;
            for (int32_t c = 0; c < s->x.c; c++)
                best = x[c] > best ? x[c] : best;
            arena[s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel] = best;
        }
}
