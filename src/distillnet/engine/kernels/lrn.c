/* Normalisation across channels, position by position. */

#define CHUNK 256 /* channels that are picked at once */
#define MOST_WINDOW 32

typedef struct {
    tensor x, y;
    int32_t before, after; /* how far the window goes to either side */
    int32_t bands;         /* (before + 1 + after, C): whether the neighbour is in the window */
    float k, share, beta;  /* share: alpha over the window's size */
    const channel_index *index; /* where each channel lies in x; NULL: in their order */
} lrn;

/* v ** -beta. Of 0.75, which all networks with this layer have, by square roots; AVX-512 has their
 * inverse to 14 bits, and a step of Newton's doubles those. Of infinity that step would be NaN.
 */
INLINE vec inverse_power(vec v, float beta)
{
#if LANES == 16 && defined(__AVX512F__)
    if (beta == 0.75f) {
        v = smaller(splat(3.4e38f), v);
        vec root = (vec)_mm512_rsqrt14_ps((__m512)v);
        root *= 1.5f - 0.5f * v * root * root;
        vec fourth = (vec)_mm512_rsqrt14_ps((__m512)root);
        fourth *= 1.5f - 0.5f * root * fourth * fourth;
        return root * root * fourth;
    }
#endif
    float each[LANES];
    store(each, v);
    if (beta == 0.75f)
        for (int32_t i = 0; i < LANES; i++) {
            const float root = sqrtf(each[i]);
            each[i] = 1.0f / (root * sqrtf(root));
        }
    else
        for (int32_t i = 0; i < LANES; i++)
            each[i] = powf(each[i], -beta);
    return load(each);
}

/* A vector of which the lanes before `first` and from `end` on are zero, and not read. */
INLINE vec load_between(const float *p, ptrdiff_t first, ptrdiff_t end)
{
#if LANES == 16 && defined(__AVX512F__)
    const uint32_t below = end >= LANES ? 0xffff : end <= 0 ? 0 : (1u << end) - 1u;
    const uint32_t skipped = first <= 0 ? 0 : first >= LANES ? 0xffff : (1u << first) - 1u;
    return (vec)_mm512_maskz_loadu_ps((__mmask16)(below & ~skipped), p);
#else
    float all[LANES] = {0};
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (i >= first && i < end)
            all[i] = p[i];
    return load(all);
#endif
}

/* x / (k + share * sum of squares in the window) ** beta. Windows lie over the original channels;
 * the bands tell which neighbours of those that are left were in it.
 */
static void run_lrn(const lrn *s, rows r, float *arena, const float *weights)
{
    const float *const bands = weights + s->bands;
    const ptrdiff_t channels = s->y.c, before = s->before, after = s->after;
    float picked[CHUNK + 2 * MOST_WINDOW];
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x = pixel_at(arena, &s->x, r.in, row, at);
            float *y = pixel_at(arena, &s->y, r.out, row, at);
            for (ptrdiff_t c = 0; c < channels; c += LANES) {
                const ptrdiff_t left = channels - c;
                const int within = before <= c && LANES + after <= left;
                if (s->index != NULL && c % CHUNK == 0) {
                    const ptrdiff_t first = c < before ? 0 : c - before;
                    const ptrdiff_t end = left < CHUNK + after ? channels : c + CHUNK + after;
                    for (ptrdiff_t i = first; i < end; i++)
                        picked[MOST_WINDOW + i - c] = x[s->index[i]];
                }
                const float *in = s->index != NULL ? picked + MOST_WINDOW + c % CHUNK : x + c;
                vec sum = splat(0.0f);
                for (ptrdiff_t d = -before; d <= after; d++) {
                    const vec beside = within ? load(in + d) : load_between(in + d, -c - d, left - d);
                    sum += load(bands + (d + before) * channels + c) * (beside * beside);
                }
                const vec scale = inverse_power(s->k + s->share * sum, s->beta);
                const vec own = within ? load(in) : load_between(in, 0, left);
                store_some(y + c, own * scale, left);
            }
        }
}
