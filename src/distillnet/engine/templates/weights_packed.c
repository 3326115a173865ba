/* @BANNER@
 *
 * The weights, packed: few values, entropy-coded by asymmetric numeral systems (J. Duda,
 * arXiv:1311.2540), @PACKED_BYTES@ bytes in place of @WEIGHT_BYTES@. @NAME@_unpack decodes them.
 */
#include <string.h>

#include "model.h"

#define CONTEXTS @CONTEXTS@
#define SYMBOLS @SYMBOLS@
#define LANES @LANES@
#define PLACE 4095u /* 12 bits of a state say which symbol comes next */
#define TABLE_AT 0
#define CODEBOOK_AT @CODEBOOK_AT@
#define STATES_AT @STATES_AT@
#define REST_AT @REST_AT@
#define BITS_AT @BITS_AT@
#define WORDS_AT @WORDS_AT@
#define END @PACKED_BYTES@

/* A layer's filters: rows x columns numbers that share steps, or a codebook where it has one. */
typedef struct {
    uint32_t at, rows, columns, codebook, n_codebook;
} matrix;

@TABLES@
static const uint8_t packed[END + 1] = {
@BYTES@};

/* What is read next. */
typedef struct {
    uint32_t state[LANES];
    uint16_t cumulated[CONTEXTS][SYMBOLS + 1];
    size_t word, bit;
    int failed;
} reader;

_Static_assert(sizeof(reader) + @WORK_BYTES@ <= @UPPER@_UNPACK_BYTES, "memory to decode in");

static uint32_t u16_at(size_t at)
{
    return (uint32_t)packed[at] | (uint32_t)packed[at + 1] << 8;
}

static float float_at(size_t at)
{
    const uint32_t bits = u16_at(at) | u16_at(at + 2) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The next number, in a context, of a lane. */
static int32_t number(reader *r, uint32_t context, uint32_t lane)
{
    const uint16_t *const from = r->cumulated[context];
    uint32_t x = r->state[lane], symbol = 0;
    while (from[symbol + 1] <= (x & PLACE))
        symbol++;
    x = (uint32_t)(from[symbol + 1] - from[symbol]) * (x >> 12) + (x & PLACE) - from[symbol];
    if (x < 65536u) {
        if (r->word + 2 > END) {
            r->failed = 1;
            return 0;
        }
        x = x << 16 | u16_at(r->word);
        r->word += 2;
    }
    r->state[lane] = x;
    const uint32_t class_ = (symbol + 1) / 2;
    int32_t size = first[class_], more = 0;
    for (uint32_t i = 0; i < width[class_]; i++, r->bit++) {
        if (BITS_AT + r->bit / 8 >= END) {
            r->failed = 1;
            return 0;
        }
        more = more << 1 | (packed[BITS_AT + r->bit / 8] >> (7 - r->bit % 8) & 1);
    }
    size += more;
    return symbol & 1 ? size : -size;
}

/* Small numbers one after the other, each as the difference from the one before. */
static void numbers(reader *r, uint32_t context, int8_t *out, uint32_t n)
{
    int32_t last = 0;
    for (uint32_t i = 0; i < n; i++) {
        last += number(r, context, i % LANES);
        out[i] = (int8_t)last;
    }
}

/* 2^(e/2). */
static float step_of(int32_t e)
{
    const int32_t half = e & 1, octave = (e - half) / 2;
    const uint32_t bits = (uint32_t)(127 + octave) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return half ? power * 1.41421356237309504880f : power;
}

static void unpack_matrix(reader *r, const matrix *m, float *weights, void *work)
{
    int32_t *const expected = work; /* sizes by column, in units of the row's class */
    int8_t *const columns = (int8_t *)(expected + m->columns), *const rows = columns + m->columns;
    int8_t *const classes = rows + m->rows;
    if (m->n_codebook == 0) {
        numbers(r, CONTEXTS - 3, rows, m->rows);
        numbers(r, CONTEXTS - 2, columns, m->columns);
    }
    numbers(r, CONTEXTS - 1, classes, m->rows);
    for (uint32_t c = 0; c < m->columns; c++)
        expected[c] = @UNIT@;
    for (uint32_t i = 0; i < m->rows; i++) {
        const int64_t scale = scales[classes[i] & @LAST_CLASS@];
        const int64_t memory = i + 2 < @MEMORY@ ? i + 2 : @MEMORY@;
        /* Blocks of channels, tap by tap behind the biases. */
        float *const out = weights + m->at + i / @BLOCK@ * (m->columns + 1) * @BLOCK@ + @BLOCK@ +
                           i % @BLOCK@;
        for (uint32_t c = 0; c < m->columns; c++) {
            const int64_t likely = (expected[c] * scale) >> 13;
            uint32_t context = 0;
            while (context < @N_BOUNDS@ && bounds[context] <= likely)
                context++;
            const int32_t level = number(r, context, c % LANES);
            int32_t size = level < 0 ? -level : level, class_ = 0;
            while (class_ + 1 < @N_SIZES@ && first[class_ + 1] <= size)
                class_++;
            size = first[class_] < @CAP@ ? first[class_] : @CAP@;
            const int64_t change = size * INT64_C(@SEEN@) / scale - expected[c];
            /* Rounded down, for negative ones, too. */
            expected[c] += (int32_t)(change >= 0 ? change / memory : -((memory - 1 - change) / memory));
            if (expected[c] < 1)
                expected[c] = 1;
            if (m->n_codebook == 0) {
                out[c * @BLOCK@] = (float)level * (step_of(rows[i]) * step_of(columns[c]));
            } else {
                const uint32_t at = (uint32_t)(level + (int32_t)(m->n_codebook / 2));
                out[c * @BLOCK@] = at < m->n_codebook
                                       ? float_at(CODEBOOK_AT + 4 * (m->codebook + at))
                                       : 0.0f;
            }
        }
    }
}

/* All other numbers where nothing stands yet: so many zeros, so many floats, and again. */
static int unpack_rest(float *weights)
{
    size_t at = REST_AT;
    uint32_t zeros = 0, floats = 0;
    for (size_t i = 0; i < @UPPER@_N_WEIGHTS; i++) {
        uint32_t bits;
        memcpy(&bits, weights + i, sizeof bits);
        if (bits != 0xffffffffu)
            continue;
        while (zeros == 0 && floats == 0) {
            if (at + 4 > BITS_AT)
                return @UPPER@_ERROR_WEIGHTS;
            zeros = u16_at(at);
            floats = u16_at(at + 2);
            at += 4;
        }
        if (zeros > 0) {
            weights[i] = 0.0f;
            zeros--;
            continue;
        }
        if (at + 4 > BITS_AT)
            return @UPPER@_ERROR_WEIGHTS;
        weights[i] = float_at(at);
        at += 4;
        floats--;
    }
    return @UPPER@_OK;
}

int @NAME@_unpack(float *weights, void *work, size_t work_bytes)
{
    if (weights == NULL || work == NULL)
        return @UPPER@_ERROR_NULL;
    if ((uintptr_t)work % _Alignof(reader) != 0 || (uintptr_t)weights % sizeof(float) != 0)
        return @UPPER@_ERROR_ALIGNMENT;
    if (work_bytes < @UPPER@_UNPACK_BYTES)
        return @UPPER@_ERROR_ARENA;
    reader *const r = work;
    *r = (reader){.word = WORDS_AT};
    for (size_t i = 0; i < LANES; i++)
        r->state[i] = u16_at(STATES_AT + 4 * i) | u16_at(STATES_AT + 4 * i + 2) << 16;
    for (size_t c = 0; c < CONTEXTS; c++) {
        for (size_t s = 0; s < SYMBOLS; s++) {
            const uint32_t next = r->cumulated[c][s] + u16_at(TABLE_AT + 2 * (c * SYMBOLS + s));
            r->cumulated[c][s + 1] = (uint16_t)next;
        }
        if (r->cumulated[c][SYMBOLS] != PLACE + 1)
            return @UPPER@_ERROR_WEIGHTS;
    }
    memset(weights, 0xff, @UPPER@_N_WEIGHTS * sizeof *weights);
    for (size_t i = 0; i < @N_MATRICES@; i++)
        unpack_matrix(r, &matrices[i], weights, r + 1);
    return r->failed ? @UPPER@_ERROR_WEIGHTS : unpack_rest(weights);
}
