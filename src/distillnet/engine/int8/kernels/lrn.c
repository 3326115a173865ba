/* Normalisation across channels, position by position: x * f(sum of squares in the window), with f
 * in a table over sums, and straight lines between its places.
 */
#define MOST_WINDOW 32

typedef struct {
    tensor x, y;
    int32_t before, after; /* how far the window goes to either side */
    int32_t bands;         /* (before + 1 + after, C) bytes: whether the neighbour is in the window */
    int32_t places;        /* bits of a sum between two entries of the table */
    int32_t x_zero, zero, shift;
    const int32_t *table;
    const channel_index *index; /* where each channel lies in x; NULL: in their order */
} lrn;

static void run_lrn(const lrn *s, rows r, uint8_t *arena, const uint8_t *weights)
{
    int32_t values[CHUNK + 2 * MOST_WINDOW], squares[CHUNK + 2 * MOST_WINDOW], sums[CHUNK];
    uint8_t result[CHUNK];
    const uint8_t *const bands = weights + s->bands;
    const int32_t *const table = s->table;
    const int32_t channels = s->y.c, places = s->places, beyond = (1 << places) - 1;
    const int32_t shift = s->shift, half = 1 << shift >> 1, zero = s->zero;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const uint8_t *x = pixel_at(arena, &s->x, r.in, row, at);
            uint8_t *y = pixel_at(arena, &s->y, r.out, row, at);
            for (int32_t c0 = 0; c0 < channels; c0 += CHUNK) {
                const int32_t n = least(channels - c0, CHUNK);
                const int32_t first = c0 < s->before ? 0 : c0 - s->before;
                const int32_t end = least(c0 + n + s->after, channels);
                memset(squares, 0, sizeof squares);
                memset(values, 0, sizeof values);
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
                for (int32_t c = 0; c < CHUNK; c++) { /* of those beyond n, sums are 0 */
                    const int32_t entry = sums[c] >> places, from = table[entry];
                    const int32_t less = from - table[entry + 1];
                    const int32_t factor = from - ((less * (sums[c] & beyond)) >> places);
                    const int32_t v = (values[c + MOST_WINDOW] * factor + half) >> shift;
                    result[c] = (uint8_t)bounded(v + zero, 0, 255);
                }
                memcpy(y + c0, result, (size_t)n);
            }
        }
}
