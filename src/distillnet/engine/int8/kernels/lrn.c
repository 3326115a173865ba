/* Normalisation across channels, position by position: x * f(sum of squares in the window), with f
 * in a table over sums, and straight lines between its places.
 */
#define MOST_WINDOW 32

typedef struct {
    tensor x, y;
    int32_t before, after; /* how far the window goes to either side */
    int32_t bands;         /* (before + 1 + after, C) bytes: whether the neighbour is in the window */
    int32_t table;         /* of 32 bits each, in the weights */
    int32_t places;        /* bits of a sum between two of its entries */
    int32_t x_zero, zero, shift;
    const uint16_t *index; /* where each channel lies in x; NULL: in their order */
} lrn;

static void run_lrn(const lrn *s, uint8_t *arena, const uint8_t *weights)
{
    int32_t values[CHUNK + 2 * MOST_WINDOW], squares[CHUNK + 2 * MOST_WINDOW], sums[CHUNK];
    const uint8_t *const bands = weights + s->bands, *const table = weights + s->table;
    const int32_t channels = s->y.c, beyond = (1 << s->places) - 1;
    for (int32_t row = 0; row < s->y.h; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *x =
                arena + s->x.at + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel;
            uint8_t *y = arena + s->y.at + (ptrdiff_t)row * s->y.row + (ptrdiff_t)at * s->y.pixel;
            for (int32_t c0 = 0; c0 < channels; c0 += CHUNK) {
                const int32_t n = least(channels - c0, CHUNK);
                const int32_t first = c0 < s->before ? 0 : c0 - s->before;
                const int32_t end = least(c0 + n + s->after, channels);
                memset(squares, 0, sizeof squares);
                for (int32_t c = first; c < end; c++) {
                    const int32_t v = x[s->index == NULL ? c : s->index[c]] - s->x_zero;
                    values[c - c0 + MOST_WINDOW] = v;
                    squares[c - c0 + MOST_WINDOW] = v * v;
                }
                memset(sums, 0, sizeof sums);
                for (int32_t d = -s->before; d <= s->after; d++) {
                    const uint8_t *const in_window = bands + (d + s->before) * channels + c0;
                    const int32_t *const neighbour = squares + MOST_WINDOW + d;
                    for (int32_t c = 0; c < n; c++)
                        sums[c] += in_window[c] * neighbour[c];
                }
                for (int32_t c = 0; c < n; c++) {
                    const uint8_t *const entry = table + 4 * (sums[c] >> s->places);
                    const int32_t from = word_at(entry), to = word_at(entry + 4);
                    const int32_t factor = from - (((from - to) * (sums[c] & beyond)) >> s->places);
                    const int32_t v = rounded(values[c + MOST_WINDOW] * factor, s->shift);
                    y[c0 + c] = (uint8_t)bounded(v + s->zero, 0, 255);
                }
            }
        }
}
