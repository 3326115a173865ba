/* Layer norm over the channels of each position. */

typedef struct {
    tensor x, y;
    int32_t scale, shift; /* (C,) each, in the weights */
    float eps;
} layer_norm;

static void run_layer_norm(const layer_norm *s, float *arena, const float *weights)
{
    const float *scale = weights + s->scale, *shift = weights + s->shift;
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x =
                arena + s->x.at + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
            float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            float sum = 0.0f, squares = 0.0f;
            for (int32_t c = 0; c < s->y.c; c++)
                sum += x[c];
            const float mean = sum / (float)s->y.c;
            for (int32_t c = 0; c < s->y.c; c++)
                squares += (x[c] - mean) * (x[c] - mean);
            const float factor = 1.0f / sqrtf(squares / (float)s->y.c + s->eps);
            for (int32_t c = 0; c < s->y.c; c++)
                y[c] = (x[c] - mean) * factor * scale[c] + shift[c];
        }
}
