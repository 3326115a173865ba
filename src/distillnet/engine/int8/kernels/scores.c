/* Scores in float32. */
typedef struct {
    tensor x;
    int32_t y, x_zero;
    float unit;
} scoring;

/* Of a map, in PyTorch's order (C, H, W). */
INLINE void run_scores(const scoring *s, uint8_t *arena)
{
    for (int32_t c = 0, i = 0; c < s->x.c; c++)
        for (int32_t row = 0; row < s->x.h; row++)
            for (int32_t at = 0; at < s->x.w; at++, i++) {
                const uint8_t x = arena[s->x.at + row * s->x.row + at * s->x.pixel + c];
                const float score = (float)(x - s->x_zero) * s->unit;
                memcpy(arena + s->y + 4 * i, &score, sizeof score);
            }
}

/* Means of whole maps, some channels of all places at once. */
INLINE void run_mean_scores(const scoring *s, uint8_t *arena)
{
    const float unit = s->unit / (float)(s->x.h * s->x.w);
    const int32_t zeros = s->x.h * s->x.w * s->x_zero;
    for (int32_t c = 0; c < s->x.c; c += CHUNK) {
        const int32_t n = least(s->x.c - c, CHUNK);
        int32_t sums[CHUNK] = {0};
        for (int32_t row = 0; row < s->x.h; row++)
            for (int32_t at = 0; at < s->x.w; at++) {
                const uint8_t *const x = arena + s->x.at + (ptrdiff_t)row * s->x.row +
                                         (ptrdiff_t)at * s->x.pixel + c;
                for (int32_t k = 0; k < n; k++)
                    sums[k] += x[k];
            }
        for (int32_t k = 0; k < n; k++) {
            const float score = (float)(sums[k] - zeros) * unit;
            memcpy(arena + s->y + 4 * (c + k), &score, sizeof score);
        }
    }
}
