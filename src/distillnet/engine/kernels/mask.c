/* What a mission does not need of a value becomes zero. */

typedef struct {
    tensor x, y;
} masking;

static void run_mask(const masking *s, const layer *l, float *arena)
{
    const uint16_t *bits = l->bits;
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x =
                arena + s->x.at + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
            float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            if (x != y)
                memcpy(y, x, (size_t)s->y.c * sizeof(float));
            if (bits == NULL) /* this mission needs all of it */
                continue;
            for (int32_t c = 0; c < s->y.c; c += BLOCK)
                keep_bits(y + c, *bits++, s->y.c - c);
        }
}
