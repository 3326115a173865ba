/* Pooling: windows are cut off at the input's border, so a pool needs no border of zeros. */

typedef struct {
    tensor x, y;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t count_pad; /* whether an average counts the padding */
    int32_t divisor;   /* what an average is divided by; 0: the window's size */
    int32_t x_zero, zero, factor, shift; /* of an average: see mean_of */
} pool;

typedef struct {
    int32_t top, bottom, left, right; /* of a window, within the input */
} window;

/* So many channels of a window, a number that compilers know; the first n are written. */
#define MAX_CHANNELS(HOW, N)                                                                    \
    HOW void max_##N(uint8_t *y, const uint8_t *x, const tensor *s, const window *at,           \
                     int32_t row_step, int32_t column_step, int32_t n)                          \
    {                                                                                           \
        uint8_t most[N] = {0};                                                                  \
        for (int32_t i = at->top; i < at->bottom; i += row_step)                                \
            for (int32_t j = at->left; j < at->right; j += column_step) {                       \
                const uint8_t *const in = x + (ptrdiff_t)i * s->row + (ptrdiff_t)j * s->pixel;  \
                for (int32_t k = 0; k < (N); k++)                                               \
                    most[k] = in[k] > most[k] ? in[k] : most[k];                                \
            }                                                                                   \
        memcpy(y, most, (size_t)n);                                                             \
    }
MAX_CHANNELS(static, 64)
#if defined(__GNUC__) && (defined(__SSE2__) || defined(__ARM_NEON))
/* Of 16, which compilers that have wider vectors take one by one. */
typedef uint8_t sixteen __attribute__((vector_size(16)));
static void max_16(uint8_t *y, const uint8_t *x, const tensor *s, const window *at, int32_t row_step,
                   int32_t column_step, int32_t n)
{
    sixteen most = {0};
    for (int32_t i = at->top; i < at->bottom; i += row_step)
        for (int32_t j = at->left; j < at->right; j += column_step) {
            sixteen in;
            memcpy(&in, x + (ptrdiff_t)i * s->row + (ptrdiff_t)j * s->pixel, sizeof in);
            const sixteen larger = (sixteen)(in > most);
            most = (in & larger) | (most & ~larger);
        }
    if (n == (int32_t)sizeof most)
        memcpy(y, &most, sizeof most);
    else
        memcpy(y, &most, (size_t)n);
}
#else /* apart, as within the loops around them GCC keeps their maximum in memory */
MAX_CHANNELS(APART, 16)
#endif

static void max_window(uint8_t *y, const uint8_t *x, const tensor *s, const window *at,
                       int32_t row_step, int32_t column_step)
{
    int32_t c = 0;
    for (; s->c - c >= CHUNK; c += CHUNK)
        max_64(y + c, x + c, s, at, row_step, column_step, CHUNK);
    for (; c < s->c; c += BEYOND) /* reads beyond the last channel, as kernels may */
        max_16(y + c, x + c, s, at, row_step, column_step, least(s->c - c, BEYOND));
}

/* Sums over an area, less the zero, times factor / area / 2**shift, from the output's zero on. The
 * factor is divided first, rounded.
 */
static void mean_window(uint8_t *y, const uint8_t *x, const tensor *s, const window *at, int32_t area,
                        const pool *p)
{
    const int32_t factor = (p->factor + area / 2) / area;
    const int32_t zeros = (at->bottom - at->top) * (at->right - at->left) * p->x_zero;
    for (int32_t c = 0; c < s->c; c += CHUNK) {
        const int32_t n = least(s->c - c, CHUNK);
        int32_t sums[CHUNK] = {0};
        for (int32_t i = at->top; i < at->bottom; i++)
            for (int32_t j = at->left; j < at->right; j++) {
                const uint8_t *const in = x + (ptrdiff_t)i * s->row + (ptrdiff_t)j * s->pixel + c;
                for (int32_t k = 0; k < n; k++)
                    sums[k] += in[k];
            }
        for (int32_t k = 0; k < n; k++) {
            const int64_t share = (int64_t)(sums[k] - zeros) * factor;
            y[c + k] = (uint8_t)bounded(rounded_long(share, p->shift) + p->zero, 0, 255);
        }
    }
}

INLINE void run_max_pool(const pool *s, rows r, uint8_t *arena)
{
    for (int32_t y = r.first; y < r.end; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            window at = {.top = y * s->stride_h - s->pad_h, .left = x * s->stride_w - s->pad_w};
            at.bottom = least(at.top + (s->kernel_h - 1) * s->dilation_h + 1, s->x.h);
            at.right = least(at.left + (s->kernel_w - 1) * s->dilation_w + 1, s->x.w);
            while (at.top < 0)
                at.top += s->dilation_h;
            while (at.left < 0)
                at.left += s->dilation_w;
            const uint8_t *const in = pixel_at(arena, &s->x, r.in, at.top, at.left);
            at = (window){0, at.bottom - at.top, 0, at.right - at.left};
            max_window(pixel_at(arena, &s->y, r.out, y, x), in, &s->x, &at, s->dilation_h,
                       s->dilation_w);
        }
}

INLINE void run_avg_pool(const pool *s, rows r, uint8_t *arena)
{
    const int32_t moved = r.in / s->x.row;
    for (int32_t y = r.first; y < r.end; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            window at = {.top = y * s->stride_h - s->pad_h, .left = x * s->stride_w - s->pad_w};
            at.bottom = least(at.top + s->kernel_h, s->x.h + s->pad_h);
            at.right = least(at.left + s->kernel_w, s->x.w + s->pad_w);
            int32_t area = (at.bottom - at.top) * (at.right - at.left);
            at.top = at.top < 0 ? 0 : at.top;
            at.left = at.left < 0 ? 0 : at.left;
            at.bottom = least(at.bottom, s->x.h);
            at.right = least(at.right, s->x.w);
            if (!s->count_pad)
                area = (at.bottom - at.top) * (at.right - at.left);
            at.top += moved;
            at.bottom += moved;
            mean_window(pixel_at(arena, &s->y, r.out, y, x), arena + s->x.at, &s->x, &at,
                        s->divisor > 0 ? s->divisor : area, s);
        }
}

/* Windows that cover the input, however many outputs there are. */
INLINE window adaptive_window(const pool *s, int32_t y, int32_t x)
{
    return (window){y * s->x.h / s->y.h, ((y + 1) * s->x.h + s->y.h - 1) / s->y.h,
                    x * s->x.w / s->y.w, ((x + 1) * s->x.w + s->y.w - 1) / s->y.w};
}

INLINE void run_adaptive_avg(const pool *s, uint8_t *arena)
{
    for (int32_t y = 0; y < s->y.h; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            const window at = adaptive_window(s, y, x);
            mean_window(arena + s->y.at + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel,
                        arena + s->x.at, &s->x, &at,
                        (at.bottom - at.top) * (at.right - at.left), s);
        }
}

INLINE void run_adaptive_max(const pool *s, uint8_t *arena)
{
    for (int32_t y = 0; y < s->y.h; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            const window at = adaptive_window(s, y, x);
            max_window(arena + s->y.at + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel,
                       arena + s->x.at, &s->x, &at, 1, 1);
        }
}
