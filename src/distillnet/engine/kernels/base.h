/* What all kernels share: vectors as wide as the target has them, and places in the arena.
 *
 * Tensors are NHWC, one image, float32. A tensor lies in the arena at `at` (in floats), its rows
 * `row` and its pixels `pixel` floats apart: more than its own width and channels where a border of
 * zeros runs around it, or where it is part of a concatenation. Weights come in blocks of BLOCK
 * output channels, whatever the target's vectors: bias[BLOCK], then [tap][BLOCK].
 *
 * Kernels read up to BLOCK floats beyond a tensor's last channel, never write there; the arena ends
 * with as much room.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 2 || __FLT_EVAL_METHOD__ == -1)
#error "floats would be computed wider than they are stored: add -msse2 -mfpmath=sse"
#endif

#define BLOCK 16

#ifndef LANES
#if !defined(__GNUC__) /* vectors are an extension of GCC and clang */
#define LANES 1
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#elif defined(__SSE2__) || defined(__ARM_NEON)
#define LANES 4
#else
#define LANES 1
#endif
#endif

#if LANES == 16 && defined(__AVX512F__) || LANES == 8 && defined(__AVX__)
#include <immintrin.h>
#endif

#define VECTORS (BLOCK / LANES) /* in a block */
#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 64")
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define UNROLL
#define INLINE static inline
#endif

#if LANES > 1
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
/* The same in memory, at any address of a float. */
typedef float vec_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#else
typedef float vec;
typedef float vec_at;
#endif

INLINE vec load(const float *p) { return *(const vec_at *)p; }
INLINE void store(float *p, vec v) { *(vec_at *)p = v; }

INLINE vec splat(float s)
{
    vec zero = load((const float[BLOCK]){0});
    return zero + s;
}

/* The first n of a vector, which may be all or none. */
INLINE void store_some(float *p, vec v, ptrdiff_t n)
{
    if (n >= LANES) {
        store(p, v);
        return;
    }
#if LANES == 16 && defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n > 0 ? n : 0)) - 1u), (__m512)v);
#else
    float all[LANES];
    store(all, v);
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (i < n)
            p[i] = all[i];
#endif
}

INLINE vec larger(vec a, vec b)
{
#if LANES == 16 && defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8 && defined(__AVX__)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif LANES > 1
    ivec first = a > b;
    return (vec)(((ivec)a & first) | ((ivec)b & ~first));
#else
    return a > b ? a : b;
#endif
}

INLINE vec smaller(vec a, vec b)
{
#if LANES == 16 && defined(__AVX512F__)
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8 && defined(__AVX__)
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif LANES > 1
    ivec first = a < b;
    return (vec)(((ivec)a & first) | ((ivec)b & ~first));
#else
    return a < b ? a : b;
#endif
}

/* The value comes second, which is what a comparison with NaN gives: NaN stays NaN. */
INLINE vec clamp(vec v, float lo, float hi) { return smaller(splat(hi), larger(splat(lo), v)); }
INLINE float clamp1(float v, float lo, float hi) { return v < lo ? lo : v > hi ? hi : v; }

typedef struct {
    int32_t at, row, pixel; /* in floats */
    int32_t h, w, c;
} tensor;

/* Rows first to end of what a step writes. Where only some rows of a map are in memory (see chain.c),
 * its places lie `in`, or `out`, floats from where they would be if all were.
 */
typedef struct {
    int32_t first, end;
    int32_t in, out;
} rows;

/* A pixel of a tensor that lies `moved` floats from its place. */
INLINE float *pixel_at(float *arena, const tensor *t, int32_t moved, int32_t row, int32_t x)
{
    return arena + ((ptrdiff_t)t->at + moved + (ptrdiff_t)row * t->row + (ptrdiff_t)x * t->pixel);
}

/* A vector with what a bitmap switches off set to zero: bit i for lane i, from bit `first` on. */
INLINE vec keep_lanes(vec v, uint32_t bits, int first)
{
#if LANES == 16 && defined(__AVX512F__)
    (void)first;
    return (vec)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)v);
#elif LANES > 1
    static const int32_t of_lane[16] = {0x1,   0x2,   0x4,   0x8,    0x10,   0x20,   0x40,   0x80,
                                        0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000};
    const ivec lane = *(const ivec_at *)(of_lane + first);
    const ivec all = {0};
    return (vec)((ivec)v & (((all + (int32_t)bits) & lane) != 0));
#else
    return bits >> first & 1 ? v : 0.0f;
#endif
}

/* The same in memory: n channels of a pixel, bit i of its word for channel i of a block. */
INLINE void keep_bits(float *p, uint32_t bits, ptrdiff_t n)
{
    if (bits == 0xffff)
        return;
    if (n >= BLOCK) {
        for (int32_t i = 0; i < BLOCK; i++)
            p[i] = bits >> i & 1 ? p[i] : 0.0f;
        return;
    }
    for (int32_t i = 0; i < n; i++)
        p[i] = bits >> i & 1 ? p[i] : 0.0f;
}

/* Zeros for n channels of pixels x0..x1 of a row. */
INLINE void clear(float *row, ptrdiff_t x0, ptrdiff_t x1, ptrdiff_t pixel, ptrdiff_t n)
{
    const vec zero = splat(0.0f);
    for (ptrdiff_t x = x0; x < x1; x++)
        for (ptrdiff_t c = 0; c < n; c += LANES)
            store_some(row + x * pixel + c, zero, n - c);
}
