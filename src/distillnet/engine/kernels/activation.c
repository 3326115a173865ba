/* Activations that are more than a clamp, which is part of the step before. */

enum { ELU, LEAKY_RELU, HARDSWISH, HARDSIGMOID, SILU, SIGMOID, GELU, GELU_TANH, TANH, MISH,
       SOFTPLUS, ABS, CLAMP };

typedef struct {
    tensor x, y;
    int32_t kind;
    float a, b, c; /* alpha, scale and input scale; slope; beta and threshold; least and most */
} activation;

/* e^x to 2e-7, without branches or calls, so that compilers turn loops over it into vectors: 2^n
 * times a polynomial of what is left of x / log 2 (Cephes, expf). */
INLINE float exp1(float x)
{
    x = clamp1(x, -87.0f, 88.0f);
    const float round = 12582912.0f; /* 1.5 * 2^23: beyond it floats are whole */
    const float n = (x * 1.44269504f + round) - round;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    const float tail = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r +
                         4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    const union { int32_t bits; float value; } power = {.bits = ((int32_t)n + 127) * (1 << 23)};
    return power.value * (tail * r * r + r + 1.0f);
}

INLINE float sigmoid1(float x) { return 1.0f / (1.0f + exp1(-x)); }
INLINE float tanh1(float x) { return 1.0f - 2.0f / (1.0f + exp1(2.0f * x)); }

/* To 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
INLINE float erf1(float x)
{
    const float t = 1.0f / (1.0f + 0.3275911f * fabsf(x));
    const float tail = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t -
                         0.284496736f) * t + 0.254829592f) * t * exp1(-x * x);
    return x < 0.0f ? tail - 1.0f : 1.0f - tail;
}

/* tanh(log(1 + e^x)) = (q - 1) / (q + 1) with q = (1 + e^x)^2 */
INLINE float mish1(float x)
{
    const float e = exp1(clamp1(x, -87.0f, 20.0f)), more = e * (e + 2.0f);
    return x * more / (more + 2.0f);
}

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
    case ELU: EACH_OF_ROW(b * (v > 0.0f ? v : a * (exp1(v * c) - 1.0f)))
    case LEAKY_RELU: EACH_OF_ROW(v > 0.0f ? v : a * v)
    case HARDSWISH: EACH_OF_ROW(v * clamp1(v + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f))
    case HARDSIGMOID: EACH_OF_ROW(clamp1(v + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f))
    case SILU: EACH_OF_ROW(v * sigmoid1(v))
    case SIGMOID: EACH_OF_ROW(sigmoid1(v))
    case GELU: EACH_OF_ROW(0.5f * v * (1.0f + erf1(v * 0.70710678f)))
    case GELU_TANH:
        EACH_OF_ROW(0.5f * v * (1.0f + tanh1(0.79788456f * (v + 0.044715f * v * v * v))))
    case TANH: EACH_OF_ROW(tanh1(v))
    case MISH: EACH_OF_ROW(mish1(v))
    case SOFTPLUS: EACH_OF_ROW(v * a > b ? v : log1pf(exp1(v * a)) / a)
    case ABS: EACH_OF_ROW(fabsf(v))
    default: EACH_OF_ROW(clamp1(v, a, b))
    }
}

static void run_activation(const activation *s, rows r, float *arena)
{
    const int dense = s->x.pixel == s->x.c && s->y.pixel == s->y.c; /* rows without gaps */
    for (int32_t row = r.first; row < r.end; row++) {
        const float *x = pixel_at(arena, &s->x, r.in, row, 0);
        float *y = pixel_at(arena, &s->y, r.out, row, 0);
        if (dense) {
            activate(s, x, y, (ptrdiff_t)s->y.w * s->y.c);
            continue;
        }
        for (int32_t at = 0; at < s->y.w; at++, x += s->x.pixel, y += s->y.pixel)
            activate(s, x, y, s->y.c);
    }
}
