/* @BANNER@
 *
 * From pixels to the network's input: @WORDS@.
 *
 * Sizes change as Pillow @PILLOW@ changes them, bit for bit: weights of @FILTER@ filters in fixed
 * point, along rows and along columns, rounded to 8 bits in between. Only rows that the next row of
 * the result needs are kept. Values are looked up, so no arithmetic of the target's changes them.
 */
#include "model.h"

/* Weights are made of doubles that must not be contracted, or they might be rounded another way. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#define CHANNELS @UPPER@_CHANNELS
#define HEIGHT @UPPER@_HEIGHT
#define WIDTH @UPPER@_WIDTH
#define RESIZE @RESIZE@ /* the shorter side before the crop; 0: the whole picture is squashed */
#define NEAREST @NEAREST@
#define COLUMNS_FIRST @COLUMNS_FIRST@ /* where the height shrinks by more than twice what the width does */
#define SUPPORT @SUPPORT@ /* of the filter, in pixels, where a picture grows */
#define PRECISION 22      /* bits of a weight */

/* What a channel's value of 0 to 255 is for the network. */
static const float values[CHANNELS][256] = {
@VALUES@};

typedef struct {
    int32_t width, height; /* of the whole picture at its new size */
    int32_t left, top;     /* where the crop begins in it; negative: a black border */
    int32_t x0, x1;        /* columns of it that are made */
} sizes;

/* Half to even, as Python rounds. */
static int32_t half(int32_t n)
{
    return n / 2 + (n % 2 != 0 && n / 2 % 2 != 0);
}

static int32_t offset(int32_t length, int32_t crop)
{
    return length >= crop ? half(length - crop) : -((crop - length) / 2);
}

static sizes sizes_of(int32_t width, int32_t height)
{
    sizes s = {.width = WIDTH, .height = HEIGHT};
    if (RESIZE > 0) {
        const int32_t shorter = width < height ? width : height;
        s.width = (int32_t)((int64_t)RESIZE * width / shorter);
        s.height = (int32_t)((int64_t)RESIZE * height / shorter);
        s.left = offset(s.width, WIDTH);
        s.top = offset(s.height, HEIGHT);
    }
    s.x0 = s.left > 0 ? s.left : 0;
    s.x1 = s.left + WIDTH < s.width ? s.left + WIDTH : s.width;
    return s;
}

/* Source pixels `first` to `first + n` make one of the result. */
typedef struct {
    int32_t first, n;
} window;

/* Weights that a window may have. */
static int32_t most_weights(int32_t in, int32_t out)
{
    if (NEAREST || in == out)
        return 1;
    double scale = (double)in / out;
    scale = scale < 1.0 ? 1.0 : scale;
    const double support = SUPPORT * scale;
    int32_t whole = (int32_t)support;
    whole += whole < support;
    return 2 * whole + 1;
}

static double filter(double x)
{
    x = x < 0.0 ? -x : x;
#if SUPPORT == 1
    return x < 1.0 ? 1.0 - x : 0.0;
#else
    const double a = -0.5;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
#endif
}

/* The window of pixel `at` of `out`, and its weights, of `in` pixels. */
static window weights_of(int32_t at, int32_t in, int32_t out, int32_t *weights)
{
    if (in == out) {
        weights[0] = 1 << PRECISION;
        return (window){at, 1};
    }
    const double scale = (double)in / out;
    if (NEAREST) {
        double x = scale * 0.5;
        for (int32_t i = 0; i < at; i++) /* Pillow adds up, too */
            x += scale;
        weights[0] = 1 << PRECISION;
        const int32_t first = (int32_t)x;
        return (window){first < in ? first : in - 1, 1};
    }
    const double wide = scale < 1.0 ? 1.0 : scale, support = SUPPORT * wide;
    const double centre = (at + 0.5) * scale, narrow = 1.0 / wide;
    int32_t first = (int32_t)(centre - support + 0.5), end = (int32_t)(centre + support + 0.5);
    first = first < 0 ? 0 : first;
    end = end > in ? in : end;
    double sum = 0.0;
    for (int32_t i = first; i < end; i++)
        sum += filter((i - centre + 0.5) * narrow);
    for (int32_t i = first; i < end; i++) {
        double w = filter((i - centre + 0.5) * narrow);
        w = sum != 0.0 ? w / sum : w;
        weights[i - first] = (int32_t)(w * (1 << PRECISION) + (w < 0 ? -0.5 : 0.5));
    }
    return (window){first, end - first};
}

static uint8_t eight_bits(int32_t sum)
{
    sum >>= PRECISION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* What lies in the caller's memory: weights of all columns, of a row, and rows that are ready. */
typedef struct {
    int32_t at_most, tall; /* weights of a column and of a row; as many rows are kept */
    int32_t row_bytes;
    int columns_first;
    window *columns;
    int32_t *of_columns, *of_row;
    uint8_t *rows;
} memory;

static memory needs_of(int32_t width, int32_t height, const sizes *s)
{
    return (memory){
        .at_most = most_weights(width, s->width),
        .tall = most_weights(height, s->height),
        .row_bytes = (s->x1 - s->x0) * CHANNELS,
        .columns_first = COLUMNS_FIRST && s->height < height &&
                         height - s->height > 2 * (width - s->width),
    };
}

static size_t bytes_of(const memory *m, const sizes *s, int32_t width)
{
    const size_t kept = (size_t)m->tall * (size_t)m->row_bytes, whole = (size_t)width * CHANNELS;
    const size_t of_column = sizeof(window) + (size_t)m->at_most * sizeof(int32_t);
    const size_t weights = (size_t)(s->x1 - s->x0) * of_column + (size_t)m->tall * sizeof(int32_t);
    return weights + (m->columns_first ? whole + (size_t)m->row_bytes : kept);
}

static void share_out(memory *m, const sizes *s, void *work)
{
    m->columns = work;
    m->of_columns = (int32_t *)(void *)(m->columns + (s->x1 - s->x0));
    m->of_row = m->of_columns + (ptrdiff_t)(s->x1 - s->x0) * m->at_most;
    m->rows = (uint8_t *)(m->of_row + m->tall);
}

/* A pixel's channel: a picture in colour becomes grey as Pillow makes it. */
static int32_t pixel(const uint8_t *rgb, int32_t c)
{
#if CHANNELS == 1
    (void)c;
    return (int32_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
#else
    return rgb[c];
#endif
}

/* A row at its new width, of one that has 3 channels as it comes, or CHANNELS once rows were mixed. */
static void make_row(const uint8_t *in, int mixed, const memory *m, uint8_t *row)
{
    const int32_t columns = m->row_bytes / CHANNELS;
    for (int32_t x = 0; x < columns; x++) {
        const window at = m->columns[x];
        const int32_t *const weights = m->of_columns + x * m->at_most;
        for (int32_t c = 0; c < CHANNELS; c++) {
            int32_t sum = 1 << (PRECISION - 1);
            for (int32_t i = 0; i < at.n; i++) {
                const int32_t from = at.first + i;
                sum += (mixed ? in[from * CHANNELS + c] : pixel(in + 3 * from, c)) * weights[i];
            }
            *row++ = eight_bits(sum);
        }
    }
}

/* A row of the result, `inside` the picture, at its new width. */
static const uint8_t *next_row(const uint8_t *rgb, int32_t width, size_t stride, window at,
                               const memory *m, int32_t *ready)
{
    if (m->columns_first) { /* mixed at the old width */
        uint8_t *const whole = m->rows, *const row = whole + (size_t)width * CHANNELS;
        for (int32_t x = 0; x < width; x++)
            for (int32_t c = 0; c < CHANNELS; c++) {
                int32_t sum = 1 << (PRECISION - 1);
                for (int32_t i = 0; i < at.n; i++)
                    sum += m->of_row[i] *
                           pixel(rgb + (size_t)(at.first + i) * stride + 3 * (size_t)x, c);
                whole[x * CHANNELS + c] = eight_bits(sum);
            }
        make_row(whole, 1, m, row);
        return row;
    }
    const size_t bytes = (size_t)m->row_bytes;
    for (*ready = *ready < at.first ? at.first : *ready; *ready < at.first + at.n; (*ready)++)
        make_row(rgb + (size_t)*ready * stride, 0, m, m->rows + (size_t)(*ready % m->tall) * bytes);
    return NULL; /* still to be mixed */
}

size_t @NAME@_preprocess_bytes(int32_t width, int32_t height)
{
    if (width < 1 || height < 1 || width > @UPPER@_MOST_PIXELS || height > @UPPER@_MOST_PIXELS)
        return 0;
    const sizes s = sizes_of(width, height);
    const memory m = needs_of(width, height, &s);
    return bytes_of(&m, &s, width);
}

int @NAME@_preprocess(const uint8_t *rgb, int32_t width, int32_t height, size_t stride, void *work,
                      size_t work_bytes, float *out)
{
    const size_t needed = @NAME@_preprocess_bytes(width, height);
    if (rgb == NULL || work == NULL || out == NULL)
        return @UPPER@_ERROR_NULL;
    if ((uintptr_t)work % _Alignof(window) != 0 || (uintptr_t)out % _Alignof(float) != 0)
        return @UPPER@_ERROR_ALIGNMENT;
    if (needed == 0 || stride < 3 * (size_t)width || work_bytes < needed)
        return @UPPER@_ERROR_PICTURE;
    const sizes s = sizes_of(width, height);
    memory m = needs_of(width, height, &s);
    share_out(&m, &s, work);
    for (int32_t x = s.x0; x < s.x1; x++)
        m.columns[x - s.x0] = weights_of(x, width, s.width, m.of_columns + (x - s.x0) * m.at_most);
    int32_t ready = 0; /* rows of the picture before this one are made, as far as they are needed */
    for (int32_t y = 0; y < HEIGHT; y++) {
        const int32_t from = y + s.top;
        const int inside = from >= 0 && from < s.height;
        window at = {0, 0};
        const uint8_t *row = NULL;
        if (inside) {
            at = weights_of(from, height, s.height, m.of_row);
            row = next_row(rgb, width, stride, at, &m, &ready);
        }
        for (int32_t x = 0; x < WIDTH; x++) {
            const int32_t column = x + s.left - s.x0;
            for (int32_t c = 0; c < CHANNELS; c++) {
                uint8_t value = 0; /* black, beyond the picture */
                if (inside && column >= 0 && column < s.x1 - s.x0) {
                    const size_t place = (size_t)(column * CHANNELS + c);
                    int32_t sum = 1 << (PRECISION - 1);
                    for (int32_t i = 0; row == NULL && i < at.n; i++)
                        sum += m.of_row[i] * m.rows[(size_t)((at.first + i) % m.tall) *
                                                        (size_t)m.row_bytes + place];
                    value = row == NULL ? eight_bits(sum) : row[place];
                }
                const int32_t channel = @CHANNEL@;
                out[(channel * HEIGHT + y) * WIDTH + x] = values[channel][value];
            }
        }
    }
    return @UPPER@_OK;
}
