/* Normalisation across channels, position by position. */

#define CHUNK 64
#define MOST_WINDOW 32

typedef struct {
    tensor x, y;
    int32_t before, after; /* how far the window goes to either side */
    int32_t bands;         /* (before + 1 + after, C): whether the neighbour is in the window */
    float k, share, beta;  /* share: alpha over the window's size */
    const uint16_t *index; /* where each channel lies in x; NULL: in their order */
} lrn;

/* x / (k + share * sum of squares in the window) ** beta. Windows lie over the original channels;
 * the bands tell which neighbours of those that are left were in it.
 */
static void run_lrn(const lrn *s, rows r, float *arena, const float *weights)
{
    float values[CHUNK + 2 * MOST_WINDOW], squares[CHUNK + 2 * MOST_WINDOW], result[CHUNK];
    const float *const bands = weights + s->bands;
    const ptrdiff_t channels = s->y.c;
    for (int32_t row = r.first; row < r.end; row++)
        for (int32_t at = 0; at < s->y.w; at++) {
            const float *x = pixel_at(arena, &s->x, r.in, row, at);
            float *y = pixel_at(arena, &s->y, r.out, row, at);
            for (ptrdiff_t c0 = 0; c0 < channels; c0 += CHUNK) {
                const ptrdiff_t n = channels - c0 < CHUNK ? channels - c0 : CHUNK;
                const ptrdiff_t first = c0 < s->before ? 0 : c0 - s->before;
                const ptrdiff_t end = c0 + n + s->after < channels ? c0 + n + s->after : channels;
                memset(squares, 0, sizeof squares);
                if (s->index == NULL)
                    memcpy(values + first - c0 + MOST_WINDOW, x + first, (size_t)(end - first) * sizeof(float));
                else
                    for (ptrdiff_t c = first; c < end; c++)
                        values[c - c0 + MOST_WINDOW] = x[s->index[c]];
                for (ptrdiff_t c = first - c0 + MOST_WINDOW; c < end - c0 + MOST_WINDOW; c++)
                    squares[c] = values[c] * values[c];
                memset(result, 0, sizeof result);
                for (int32_t d = -s->before; d <= s->after; d++) {
                    const float *in_window = bands + (d + s->before) * channels + c0;
                    const float *neighbour = squares + MOST_WINDOW + d;
                    for (ptrdiff_t c = 0; c < n; c++)
                        result[c] += in_window[c] * neighbour[c];
                }
                if (s->beta == 0.75f)
                    for (ptrdiff_t c = 0; c < n; c++) {
                        const float root = sqrtf(s->k + s->share * result[c]);
                        result[c] = 1.0f / (root * sqrtf(root));
                    }
                else
                    for (ptrdiff_t c = 0; c < n; c++)
                        result[c] = powf(s->k + s->share * result[c], -s->beta);
                for (ptrdiff_t c = 0; c < n; c++)
                    y[c0 + c] = values[c + MOST_WINDOW] * result[c];
            }
        }
}
