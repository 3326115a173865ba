/* Activations that are more than a clamp, which is part of the step before. */

enum { ELU, LEAKY_RELU, HARDSWISH, HARDSIGMOID, SILU, SIGMOID, GELU, GELU_TANH, TANH, MISH,
       SOFTPLUS, ABS, CLAMP };

typedef struct {
    tensor x, y;
    int32_t kind;
    float a, b, c; /* alpha, scale and input scale; slope; beta and threshold; least and most */
} activation;

INLINE float sigmoid1(float x) { return 1.0f / (1.0f + expf(-x)); }
INLINE float softplus1(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

#define EACH_OF_ROW(VALUE)                              \
    for (ptrdiff_t i = 0; i < n; i++) {                 \
        const float v = x[i];                           \
        y[i] = VALUE;                                   \
    }                                                   \
    break;

static void activate(const activation *s, const float *x, float *y, ptrdiff_t n)
{
    const float a = s->a, b = s->b, c = s->c;
    switch (s->kind) {
    case ELU: EACH_OF_ROW(b * (v > 0.0f ? v : a * expm1f(v * c)))
    case LEAKY_RELU: EACH_OF_ROW(v > 0.0f ? v : a * v)
    case HARDSWISH: EACH_OF_ROW(v * clamp1(v + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f))
    case HARDSIGMOID: EACH_OF_ROW(clamp1(v + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f))
    case SILU: EACH_OF_ROW(v * sigmoid1(v))
    case SIGMOID: EACH_OF_ROW(sigmoid1(v))
    case GELU: EACH_OF_ROW(0.5f * v * (1.0f + erff(v * 0.70710678f)))
    case GELU_TANH:
        EACH_OF_ROW(0.5f * v * (1.0f + tanhf(0.79788456f * (v + 0.044715f * v * v * v))))
    case TANH: EACH_OF_ROW(tanhf(v))
    case MISH: EACH_OF_ROW(v * tanhf(softplus1(v)))
    case SOFTPLUS: EACH_OF_ROW(v * a > b ? v : log1pf(expf(v * a)) / a)
    case ABS: EACH_OF_ROW(fabsf(v))
    default: EACH_OF_ROW(clamp1(v, a, b))
    }
}

static void run_activation(const activation *s, float *arena)
{
    const int dense = s->x.pixel == s->x.c && s->y.pixel == s->y.c; /* rows without gaps */
    for (int32_t row = 0; row < s->y.h; row++) {
        const float *x = arena + s->x.at + (ptrdiff_t)row * s->x.row;
        float *y = arena + s->y.at + (ptrdiff_t)row * s->y.row;
        if (dense) {
            activate(s, x, y, (ptrdiff_t)s->y.w * s->y.c);
            continue;
        }
        for (int32_t at = 0; at < s->y.w; at++, x += s->x.pixel, y += s->y.pixel)
            activate(s, x, y, s->y.c);
    }
}
