/* Normalisation of each group of channels over the whole map. */

typedef struct {
    tensor x, y;
    int32_t groups;
    int32_t scale, shift; /* (C,) each, in the weights */
    float eps;
} group_norm;

/* The sum over a group's values of (x - mean), or of its square; row by row, so that a large map
 * loses no more digits than a small one.
 */
static float group_sum(const tensor *x, const float *first, int32_t count, float mean, int squared)
{
    float total = 0.0f;
    for (int32_t row = 0; row < x->h; row++) {
        float sum = 0.0f;
        for (int32_t at = 0; at < x->w; at++) {
            const float *p = first + (ptrdiff_t)row * x->row + (ptrdiff_t)at * x->pixel;
            for (int32_t c = 0; c < count; c++)
                sum += squared ? (p[c] - mean) * (p[c] - mean) : p[c] - mean;
        }
        total += sum;
    }
    return total;
}

static void run_group_norm(const group_norm *s, float *arena, const float *weights)
{
    const int32_t count = s->y.c / s->groups;
    const float size = (float)count * (float)(s->x.h * s->x.w);
    for (int32_t g = 0; g < s->groups; g++) {
        const float *scale = weights + s->scale + g * count;
        const float *shift = weights + s->shift + g * count;
        const float *first = arena + s->x.at + g * count;
        const float mean = group_sum(&s->x, first, count, 0.0f, 0) / size;
        const float variance = group_sum(&s->x, first, count, mean, 1) / size;
        const float factor = 1.0f / sqrtf(variance + s->eps);
        for (int32_t row = 0; row < s->y.h; row++)
            for (int32_t at = 0; at < s->y.w; at++) {
                const float *x = first + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
                float *y = arena + s->y.at + g * count + (ptrdiff_t)row * s->y.row +
                           (ptrdiff_t)at * s->y.pixel;
                for (int32_t c = 0; c < count; c++)
                    y[c] = (x[c] - mean) * factor * scale[c] + shift[c];
            }
    }
}
