/* Sums of products, for what the target has: a vector of sums, one for each of LANES channels, takes
 * four bytes of the input, the same for all, times four bytes of each channel's filter at once. What
 * a bitmap switches off becomes zero on its way out: bit i of `bits` for lane i.
 *
 * EACH lists the tiles: places at once for 1, 2, .. blocks, as many sums as there are registers for.
 */
#if BLOCK == 16 && defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LANES 16
#define GROUPS 4
#define MOST_PLACES 14
static const int32_t most_places[GROUPS] = {14, 14, 9, 4};
#define EACH_P4(F, G) F(1, G) F(2, G) F(3, G) F(4, G)
#define EACH_P9(F, G) EACH_P4(F, G) F(5, G) F(6, G) F(7, G) F(8, G) F(9, G)
#define EACH_P14(F, G) EACH_P9(F, G) F(10, G) F(11, G) F(12, G) F(13, G) F(14, G)
#define EACH(F) EACH_P14(F, 1) EACH_P14(F, 2) EACH_P9(F, 3) EACH_P4(F, 4)

typedef __m512i sums, inputs, filters;
INLINE sums load_sums(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE inputs load_inputs(const uint8_t *p) { return _mm512_set1_epi32(word_at(p)); }
INLINE filters load_filters(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE sums add_products(sums s, inputs x, filters w)
{
#if defined(__GNUC__) /* of the intrinsic's sums, GCC keeps copies in memory */
    __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(x), "v"(w));
    return s;
#else
    return _mm512_dpbusd_epi32(s, x, w);
#endif
}

INLINE sums steps_of(sums s, sums m, const output *o)
{
    const __m512i even = _mm512_mul_epi32(s, m);
    const __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(s, 32), _mm512_srli_epi64(m, 32));
    __m512i v = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_CDAB);
    v = _mm512_add_epi32(v, _mm512_set1_epi32(1 << o->shift >> 1));
    v = _mm512_sra_epi32(v, _mm_cvtsi32_si128(o->shift));
    v = _mm512_add_epi32(v, _mm512_set1_epi32(o->zero));
    v = _mm512_max_epi32(v, _mm512_set1_epi32(o->lo));
    return _mm512_min_epi32(v, _mm512_set1_epi32(o->hi));
}

INLINE sums keep_lanes(sums v, uint32_t bits, int32_t zero)
{
    return _mm512_mask_mov_epi32(_mm512_set1_epi32(zero), (__mmask16)bits, v);
}

INLINE void store_block(uint8_t *p, const sums *v, ptrdiff_t n)
{
    const __m128i bytes = _mm512_cvtepi32_epi8(v[0]);
    if (n >= BLOCK)
        _mm_storeu_si128((void *)p, bytes);
    else
        _mm_mask_storeu_epi8(p, (__mmask16)((1u << (n > 0 ? n : 0)) - 1u), bytes);
}

#elif BLOCK == 16 && defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#define GROUPS 1
#define EACH_P4(F) F(1, 1) F(2, 1) F(3, 1) F(4, 1)
typedef __m256i sums;
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
#define MOST_PLACES 6
#define EACH(F) EACH_P4(F) F(5, 1) F(6, 1)
typedef __m256i inputs, filters;
INLINE inputs load_inputs(const uint8_t *p) { return _mm256_set1_epi32(word_at(p)); }
INLINE filters load_filters(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
INLINE sums add_products(sums s, inputs x, filters w)
{
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(s, x, w);
#else
    return _mm256_dpbusd_epi32(s, x, w);
#endif
}
#else
/* Products of bytes may not fit when two are added in 16 bits, so bytes become words of 16 bits: the
 * first and third of each four, the second and fourth.
 */
#define MOST_PLACES 4
#define EACH(F) EACH_P4(F)
typedef struct {
    __m256i even, odd;
} inputs, filters;
INLINE inputs load_inputs(const uint8_t *p)
{
    const __m256i x = _mm256_set1_epi32(word_at(p));
    return (inputs){_mm256_and_si256(x, _mm256_set1_epi32(0x00ff00ff)), _mm256_srli_epi16(x, 8)};
}
INLINE filters load_filters(const uint8_t *p)
{
    const __m256i w = _mm256_loadu_si256((const void *)p);
    return (filters){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}
INLINE sums add_products(sums s, inputs x, filters w)
{
    s = _mm256_add_epi32(s, _mm256_madd_epi16(x.even, w.even));
    return _mm256_add_epi32(s, _mm256_madd_epi16(x.odd, w.odd));
}
#endif
static const int32_t most_places[GROUPS] = {MOST_PLACES};
INLINE sums load_sums(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }

INLINE sums steps_of(sums s, sums m, const output *o)
{
    const __m256i even = _mm256_mul_epi32(s, m);
    const __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(s, 32), _mm256_srli_epi64(m, 32));
    __m256i v = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    v = _mm256_add_epi32(v, _mm256_set1_epi32(1 << o->shift >> 1));
    v = _mm256_sra_epi32(v, _mm_cvtsi32_si128(o->shift));
    v = _mm256_add_epi32(v, _mm256_set1_epi32(o->zero));
    v = _mm256_max_epi32(v, _mm256_set1_epi32(o->lo));
    return _mm256_min_epi32(v, _mm256_set1_epi32(o->hi));
}

INLINE sums keep_lanes(sums v, uint32_t bits, int32_t zero)
{
    const __m256i lane = _mm256_setr_epi32(0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80);
    const __m256i some = _mm256_and_si256(_mm256_set1_epi32((int32_t)bits), lane);
    return _mm256_blendv_epi8(_mm256_set1_epi32(zero), v, _mm256_cmpeq_epi32(some, lane));
}

INLINE void store_block(uint8_t *p, const sums *v, ptrdiff_t n)
{
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(v[0], v[1]), 0xd8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(pairs),
                                           _mm256_extracti128_si256(pairs, 1));
    if (n >= BLOCK) {
        _mm_storeu_si128((void *)p, bytes);
        return;
    }
    uint8_t all[BLOCK];
    _mm_storeu_si128((void *)all, bytes);
    for (ptrdiff_t i = 0; i < n; i++)
        p[i] = all[i];
}

#elif BLOCK == 16 && defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define LANES 4
#define GROUPS 1
#define MOST_PLACES 6
static const int32_t most_places[GROUPS] = {MOST_PLACES};
#define EACH(F) F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1)
/* Both sides of its products are signed, so inputs are taken less 128; see half_filters. */
#define SIGNED_INPUTS 1
typedef int32x4_t sums;
typedef int8x16_t inputs, filters;
INLINE sums load_sums(const uint8_t *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
INLINE inputs load_inputs(const uint8_t *p)
{
    return vreinterpretq_s8_s32(vdupq_n_s32(word_at(p) ^ (int32_t)0x80808080u));
}
INLINE filters load_filters(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
INLINE sums add_products(sums s, inputs x, filters w) { return vdotq_s32(s, x, w); }

INLINE sums steps_of(sums s, sums m, const output *o)
{
    const int32x2_t low = vshrn_n_s64(vmull_s32(vget_low_s32(s), vget_low_s32(m)), 32);
    int32x4_t v = vshrn_high_n_s64(low, vmull_high_s32(s, m), 32);
    v = vrshlq_s32(v, vdupq_n_s32(-o->shift));
    v = vaddq_s32(v, vdupq_n_s32(o->zero));
    return vminq_s32(vmaxq_s32(v, vdupq_n_s32(o->lo)), vdupq_n_s32(o->hi));
}

INLINE sums keep_lanes(sums v, uint32_t bits, int32_t zero)
{
    static const int32_t lane[LANES] = {0x1, 0x2, 0x4, 0x8};
    const uint32x4_t kept = vtstq_s32(vdupq_n_s32((int32_t)bits), vld1q_s32(lane));
    return vbslq_s32(kept, v, vdupq_n_s32(zero));
}

INLINE void store_block(uint8_t *p, const sums *v, ptrdiff_t n)
{
    const uint16x8_t low = vcombine_u16(vqmovun_s32(v[0]), vqmovun_s32(v[1]));
    const uint16x8_t high = vcombine_u16(vqmovun_s32(v[2]), vqmovun_s32(v[3]));
    const uint8x16_t bytes = vcombine_u8(vqmovn_u16(low), vqmovn_u16(high));
    if (n >= BLOCK) {
        vst1q_u8(p, bytes);
        return;
    }
    uint8_t all[BLOCK];
    vst1q_u8(all, bytes);
    for (ptrdiff_t i = 0; i < n; i++)
        p[i] = all[i];
}

#elif BLOCK == 1
#define LANES 1
#define MOST_ROUNDS 8 /* of a tile so small that to begin one costs as much as some taps */
#define ROUNDS(tile) (tile)->rounds
#define GROUPS 2
#define MOST_PLACES 2
static const int32_t most_places[GROUPS] = {2, 2};
#define EACH(F) F(1, 1) F(2, 1) F(1, 2) F(2, 2)
typedef int32_t sums;
INLINE sums load_sums(const uint8_t *p) { return word_at(p); }
#if defined(__ARM_FEATURE_DSP) && !defined(__aarch64__)
#include <arm_acle.h>
/* Two products at once of halves of 16 bits: the first and third byte, the second and fourth. */
typedef struct {
    int32_t even, odd;
} inputs, filters;
INLINE inputs load_inputs(const uint8_t *p)
{
    const int32_t v = word_at(p);
    inputs x = {.even = (int32_t)__uxtb16((uint32_t)v)};
    __asm__("uxtb16 %0, %1, ror #8" : "=r"(x.odd) : "r"(v)); /* compilers turn apart */
    return x;
}
INLINE filters load_filters(const uint8_t *p)
{
    const int32_t v = word_at(p);
    filters w = {.even = __sxtb16(v)};
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(w.odd) : "r"(v));
    return w;
}
INLINE sums add_products(sums s, inputs x, filters w)
{
    return __smlad(x.odd, w.odd, __smlad(x.even, w.even, s));
}

/* There are 14 registers: a pointer for each place and block, and filters one after the other, leave
 * room for all sums; sixteen taps share what the loop costs.
 */
#define OWN_RUN 1
INLINE void add_four(int places, int blocks, sums *sum, const uint8_t *a, const uint8_t *b,
                     const uint8_t *v, const uint8_t *w)
{
    const inputs first = load_inputs(a), second = places > 1 ? load_inputs(b) : first;
    const filters one = load_filters(v);
    sum[0] = add_products(sum[0], first, one);
    if (places > 1)
        sum[blocks] = add_products(sum[blocks], second, one);
    if (blocks == 1)
        return;
    const filters other = load_filters(w);
    sum[1] = add_products(sum[1], first, other);
    if (places > 1)
        sum[blocks + 1] = add_products(sum[blocks + 1], second, other);
}

INLINE void add_run(int places, int blocks, sums *sum, const uint8_t *const *x, ptrdiff_t from,
                    ptrdiff_t n, const uint8_t *v, ptrdiff_t block)
{
    const uint8_t *a = x[0] + from, *b = x[places - 1] + from, *w = v + (blocks - 1) * block;
    const uint8_t *const end = a + n, *const sixteens = a + (n & ~(ptrdiff_t)15);
    for (; a != sixteens; a += 16, b += 16, v += 16, w += 16)
        UNROLL for (int i = 0; i < 16; i += 4)
            add_four(places, blocks, sum, a + i, b + i, v + i, w + i);
    for (; a < end; a += 4, b += 4, v += 4, w += 4)
        add_four(places, blocks, sum, a, b, v, w);
}
#else
typedef const uint8_t *inputs, *filters;
INLINE inputs load_inputs(const uint8_t *p) { return p; }
INLINE filters load_filters(const uint8_t *p) { return p; }
INLINE sums add_products(sums s, inputs x, filters w)
{
    UNROLL for (int i = 0; i < 4; i++) s += x[i] * (int8_t)w[i];
    return s;
}
#endif
INLINE sums steps_of(sums s, sums m, const output *o) { return byte_of_sum(s, m, o); }
INLINE sums keep_lanes(sums v, uint32_t bits, int32_t zero) { return bits & 1 ? v : zero; }
INLINE void store_block(uint8_t *p, const sums *v, ptrdiff_t n)
{
    (void)n; /* no block has less than its channel */
    *p = (uint8_t)*v;
}

#else /* plain C */
#define LANES BLOCK
#define GROUPS 1
#define MOST_PLACES 1
static const int32_t most_places[GROUPS] = {1};
#define EACH(F) F(1, 1)
typedef struct {
    int32_t of[BLOCK];
} sums;
typedef const uint8_t *inputs, *filters;
INLINE sums load_sums(const uint8_t *p)
{
    sums s;
    memcpy(&s, p, sizeof s);
    return s;
}
INLINE inputs load_inputs(const uint8_t *p) { return p; }
INLINE filters load_filters(const uint8_t *p) { return p; }
INLINE sums add_products(sums s, inputs x, filters w)
{
    for (int i = 0; i < BLOCK; i++)
        for (int k = 0; k < 4; k++)
            s.of[i] += x[k] * (int8_t)w[4 * i + k];
    return s;
}
INLINE sums steps_of(sums s, sums m, const output *o)
{
    for (int i = 0; i < BLOCK; i++)
        s.of[i] = byte_of_sum(s.of[i], m.of[i], o);
    return s;
}
INLINE sums keep_lanes(sums v, uint32_t bits, int32_t zero)
{
    for (int i = 0; i < BLOCK; i++)
        v.of[i] = bits >> i & 1 ? v.of[i] : zero;
    return v;
}
INLINE void store_block(uint8_t *p, const sums *v, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n && i < BLOCK; i++)
        p[i] = (uint8_t)v->of[i];
}
#endif

#ifndef MOST_ROUNDS
#define MOST_ROUNDS 1
#define ROUNDS(tile) 1
#endif
#define VECTORS (BLOCK / LANES)                 /* in a block */
#define HEAD (8 * BLOCK)                        /* bytes before a block's filters */
