/* What all kernels share. Every number between layers is a byte: q stands for step * (q - zero), with
 * a step and a zero for each tensor. All arithmetic is in whole numbers and the same on every
 * target, bit for bit.
 *
 * Tensors are NHWC, one image. A tensor lies in the arena at `at` (in bytes), its rows `row` and its
 * pixels `pixel` bytes apart: more than its own width and channels where a border runs around it, or
 * where it is part of a concatenation. Filters come in blocks of BLOCK output channels: bias[BLOCK]
 * and multiplier[BLOCK], 32 bits each, little-endian, then for each four numbers of the input that
 * lie side by side [BLOCK][4] bytes.
 *
 * Kernels read up to 16 bytes beyond a tensor's last channel, never write there; the arena ends with
 * as much room.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "weights are little-endian; this target is not"
#endif

#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 64")
#define INLINE static inline __attribute__((always_inline, unused))
#define APART static __attribute__((noinline))
#else
#define UNROLL
#define INLINE static inline
#define APART static
#endif

#define WORD 16   /* channels whose bits of a mission lie in one word */
#define CHUNK 64  /* channels that simple kernels take at once */
#define BEYOND 16 /* bytes that may be read after a tensor's last channel */

typedef struct {
    int32_t at, row, pixel; /* in bytes */
    int32_t h, w, c;
} tensor;

/* Rows first to end of what a step writes. Where only some rows of a map are in memory (see chain.c),
 * its places lie `in`, or `out`, bytes from where they would be if all were.
 */
typedef struct {
    int32_t first, end;
    int32_t in, out;
} rows;

/* How a sum becomes a byte: times a multiplier, over 2**32 and 2**shift (at least 1), rounded half
 * up, from the zero of the output on, within bounds.
 */
typedef struct {
    int32_t shift, zero, lo, hi;
} output;

INLINE int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
INLINE int32_t bounded(int32_t v, int32_t lo, int32_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* A pixel of a tensor that lies `moved` bytes from its place. */
INLINE uint8_t *pixel_at(uint8_t *arena, const tensor *t, int32_t moved, int32_t row, int32_t x)
{
    return arena + ((ptrdiff_t)t->at + moved + (ptrdiff_t)row * t->row + (ptrdiff_t)x * t->pixel);
}

INLINE int32_t word_at(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Over 2**shift, rounded half up. */
INLINE int32_t rounded(int32_t v, int32_t shift) { return (v + (1 << shift >> 1)) >> shift; }
INLINE int32_t rounded_long(int64_t v, int32_t shift)
{
    return (int32_t)((v + ((int64_t)1 << shift >> 1)) >> shift);
}

INLINE int32_t byte_of_sum(int32_t sum, int32_t multiplier, const output *o)
{
    const int32_t high = (int32_t)(((int64_t)sum * multiplier) >> 32);
    return bounded(rounded(high, o->shift) + o->zero, o->lo, o->hi);
}

/* Set what a bitmap switches off to zero: bit i of a pixel's word for channel i. */
INLINE void keep_bits(uint8_t *p, uint32_t bits, ptrdiff_t n, int32_t zero)
{
    if (bits == 0xffff)
        return;
    for (int32_t i = 0; i < n && i < WORD; i++)
        p[i] = bits >> i & 1 ? p[i] : (uint8_t)zero;
}

/* Zeros for n channels of pixels x0..x1 of a row. */
INLINE void clear(uint8_t *row, ptrdiff_t x0, ptrdiff_t x1, ptrdiff_t pixel, ptrdiff_t n,
                  int32_t zero)
{
    for (ptrdiff_t x = x0; x < x1; x++) {
        uint8_t *const p = row + x * pixel;
        ptrdiff_t c = 0;
        for (; c + WORD <= n; c += WORD) /* of a size that compilers know */
            memset(p + c, zero, WORD);
        if (c < n)
            memset(p + c, zero, (size_t)(n - c));
    }
}
