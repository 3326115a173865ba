/* A constant times and a constant plus each channel: batch norm that could not be folded. */

typedef struct {
    tensor x, y;
    int32_t scale, shift; /* (C,) each, in the weights */
    float lo, hi;
} affine;

static void run_affine(const affine *s, rows r, float *arena, const float *weights)
{
    const float *scale = weights + s->scale, *shift = weights + s->shift;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x = pixel_at(arena, &s->x, r.in, row, at);
            float *y = pixel_at(arena, &s->y, r.out, row, at);
            for (int32_t c = 0; c < s->y.c; c += LANES)
                store_some(y + c,
                           clamp(load(x + c) * load(scale + c) + load(shift + c), s->lo, s->hi),
                           s->y.c - c);
        }
}
