/* Depthwise convolutions, one filter a channel, in blocks of DEPTH channels: bias[DEPTH],
 * multiplier[DEPTH], then [tap][DEPTH] bytes.
 */
#if BLOCK < 4
#define DEPTH 4
#define UNROLL_FEW UNROLL
#else
#define DEPTH BLOCK
#define UNROLL_FEW /* into vectors, by compilers */
#endif

typedef struct {
    tensor y;
    int32_t x; /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;
    int32_t rows, row_step, columns, column_step; /* of the kernel */
    output out;
} depthwise;

/* A tap of each channel. */
INLINE void add_taps(int32_t *sum, const uint8_t *x, const uint8_t *w)
{
#if DEPTH == 4 && defined(OWN_RUN)
    const inputs values = load_inputs(x);
    const filters taps = load_filters(w);
    sum[0] = __smlabb(values.even, taps.even, sum[0]);
    sum[1] = __smlabb(values.odd, taps.odd, sum[1]);
    sum[2] = __smlatt(values.even, taps.even, sum[2]);
    sum[3] = __smlatt(values.odd, taps.odd, sum[3]);
#else
    for (int32_t i = 0; i < DEPTH; i++)
        sum[i] += (int16_t)(x[i] * (int8_t)w[i]);
#endif
}

static void depthwise_place(const depthwise *s, const uint8_t *x, const uint8_t *w, uint8_t *y,
                            ptrdiff_t channels)
{
    int32_t sum[DEPTH];
    UNROLL_FEW for (int32_t i = 0; i < DEPTH; i++) sum[i] = word_at(w + 4 * i);
    const uint8_t *const multipliers = w + 4 * DEPTH;
    w += 8 * DEPTH;
    for (int32_t r = 0; r < s->rows; r++, x += s->row_step) {
        const uint8_t *tap = x;
        for (int32_t c = 0; c < s->columns; c++, w += DEPTH, tap += s->column_step)
            add_taps(sum, tap, w);
    }
    const output out = s->out;
    uint8_t all[DEPTH];
    UNROLL_FEW for (int32_t i = 0; i < DEPTH; i++)
        all[i] = (uint8_t)byte_of_sum(sum[i], word_at(multipliers + 4 * i), &out);
    if (channels >= DEPTH)
        memcpy(y, all, DEPTH);
    else
        for (ptrdiff_t i = 0; i < channels; i++)
            y[i] = all[i];
}

#if DEPTH == 16 && LANES == 16 && defined(__AVX512VNNI__)
#define MOST_FOURS 16 /* of taps */

/* Four taps of 16 channels each -> 16 channels of four taps each. */
INLINE __m512i four_taps(const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d)
{
    const __m512i across =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i within = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)a));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)b), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)c), 2);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)d), 3);
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(across, v), within);
}

/* Kernels of three columns at a step of one place: four pixels of a row hold the taps of two places,
 * the filters' taps one further for the second. Done are all places but the last of an odd number;
 * which is next.
 */
static int32_t depthwise_pairs(const depthwise *s, const uint8_t *x, const uint8_t *w, uint8_t *y,
                               ptrdiff_t channels, int32_t x0, int32_t x1)
{
    static const uint8_t none[DEPTH] = {0};
    __m512i first[MOST_FOURS], second[MOST_FOURS];
    if (s->columns != 3 || s->rows > MOST_FOURS || s->column_step != s->x_step)
        return x0;
    for (int32_t r = 0; r < s->rows; r++) {
        const uint8_t *const tap = w + (8 + 3 * r) * DEPTH;
        first[r] = four_taps(tap, tap + DEPTH, tap + 2 * DEPTH, none);
        second[r] = four_taps(none, tap, tap + DEPTH, tap + 2 * DEPTH);
    }
    const sums bias = load_sums(w), multipliers = load_sums(w + 4 * DEPTH);
    const ptrdiff_t step = s->x_step;
    for (; x0 + 1 < x1; x0 += 2) {
        const uint8_t *in = x + x0 * step;
        sums one = bias, other = bias;
        for (int32_t r = 0; r < s->rows; r++, in += s->row_step) {
            const __m512i taps = four_taps(in, in + step, in + 2 * step, in + 3 * step);
            one = add_products(one, taps, first[r]);
            other = add_products(other, taps, second[r]);
        }
        one = steps_of(one, multipliers, &s->out);
        other = steps_of(other, multipliers, &s->out);
        store_block(y + (ptrdiff_t)x0 * s->y.pixel, &one, channels);
        store_block(y + (ptrdiff_t)(x0 + 1) * s->y.pixel, &other, channels);
    }
    return x0;
}

/* Places x0 to x1 of a row, 16 channels; 0 where there are more taps than it takes. */
static int depthwise_places(const depthwise *s, const uint8_t *x, const uint8_t *w, uint8_t *y,
                            ptrdiff_t channels, int32_t x0, int32_t x1)
{
    static const uint8_t none[DEPTH] = {0};
    const int32_t taps = s->rows * s->columns, fours = (taps + 3) / 4;
    if (fours > MOST_FOURS)
        return 0;
    x0 = depthwise_pairs(s, x, w, y, channels, x0, x1);
    if (x0 == x1)
        return 1;
    __m512i weight[MOST_FOURS];
    ptrdiff_t at[4 * MOST_FOURS];
    const uint8_t *of[4];
    for (int32_t i = 0; i < 4 * fours; i++) {
        const int32_t tap = least(i, taps - 1);
        at[i] = (ptrdiff_t)(tap / s->columns) * s->row_step +
                (ptrdiff_t)(tap % s->columns) * s->column_step;
        of[i % 4] = i < taps ? w + (8 + i) * DEPTH : none;
        if (i % 4 == 3)
            weight[i / 4] = four_taps(of[0], of[1], of[2], of[3]);
    }
    const sums bias = load_sums(w), multipliers = load_sums(w + 4 * DEPTH);
    for (int32_t p = x0; p < x1; p++) {
        const uint8_t *const in = x + (ptrdiff_t)p * s->x_step;
        sums sum = bias;
        for (int32_t i = 0; i < fours; i++) {
            const ptrdiff_t *const tap = at + 4 * i;
            sum = add_products(
                sum, four_taps(in + tap[0], in + tap[1], in + tap[2], in + tap[3]), weight[i]);
        }
        sum = steps_of(sum, multipliers, &s->out);
        store_block(y + (ptrdiff_t)p * s->y.pixel, &sum, channels);
    }
    return 1;
}
#else
INLINE int depthwise_places(const depthwise *s, const uint8_t *x, const uint8_t *w, uint8_t *y,
                            ptrdiff_t channels, int32_t x0, int32_t x1)
{
    (void)s, (void)x, (void)w, (void)y, (void)channels, (void)x0, (void)x1;
    return 0;
}
#endif

static void depthwise_row(const depthwise *s, const strip *part, uint8_t *arena,
                          const uint8_t *weights, rows r, int32_t row, int32_t x0, int32_t x1)
{
    const ptrdiff_t block = (ptrdiff_t)(s->rows * s->columns + 8) * DEPTH;
    const uint8_t *const x_row =
        arena + ((ptrdiff_t)s->x + part->in + r.in + (ptrdiff_t)row * s->y_step);
    uint8_t *const y_row = pixel_at(arena, &s->y, r.out, row, 0) + part->out;
    for (ptrdiff_t c = 0; c < part->channels; c += DEPTH) {
        const uint8_t *const w = weights + part->weights + c / DEPTH * block;
        const ptrdiff_t left = part->channels - c;
        if (depthwise_places(s, x_row + c, w, y_row + c, left, x0, x1))
            continue;
        for (int32_t at = x0; at < x1; at++)
            depthwise_place(s, x_row + c + (ptrdiff_t)at * s->x_step, w,
                            y_row + c + (ptrdiff_t)at * s->y.pixel, left);
    }
}

/* What single channels of a strip do not keep of its spans within rows. */
static void keep_in_spans(const depthwise *s, const layer *l, const strip *part, rows r,
                          const some_places *some, uint8_t *arena)
{
    const bitmap bits = bitmap_of(l, part);
    ptrdiff_t place = some->before;
    for (const span *at = some->spans; at < some->end; at++) {
        uint8_t *const row = pixel_at(arena, &s->y, r.out, at->y, 0) + part->out;
        for (int32_t x = at->x0; x < at->x1; x++, place++) {
            const uint16_t *const words = words_at(&bits, place);
            for (int32_t c = 0; c < part->channels; c += WORD)
                keep_bits(row + (ptrdiff_t)x * s->y.pixel + c, words[c / WORD], part->channels - c,
                          s->out.zero);
        }
    }
}

static void run_depthwise(const depthwise *s, const layer *l, rows r, uint8_t *arena,
                          const uint8_t *weights)
{
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const some_places some = places_in(l, part, &s->y, r);
        if (part->spans < 0)
            for (int32_t row = r.first; row < r.end; row++)
                depthwise_row(s, part, arena, weights, r, row, 0, s->y.w);
        for (const span *at = some.spans; at < some.end; at++)
            depthwise_row(s, part, arena, weights, r, at->y, at->x0, at->x1);
        if (part->bits >= 0)
            keep_in_spans(s, l, part, r, &some, arena);
        clear_strip(l, part, &s->y, r, arena, s->out.zero);
    }
}
