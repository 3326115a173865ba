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

/* Means of whole maps. */
INLINE void run_mean_scores(const scoring *s, uint8_t *arena)
{
    const float unit = s->unit / (float)(s->x.h * s->x.w);
    for (int32_t c = 0; c < s->x.c; c++) {
        int32_t sum = 0;
        for (int32_t row = 0; row < s->x.h; row++)
            for (int32_t at = 0; at < s->x.w; at++)
                sum += arena[s->x.at + row * s->x.row + at * s->x.pixel + c] - s->x_zero;
        const float score = (float)sum * unit;
        memcpy(arena + s->y + 4 * c, &score, sizeof score);
    }
}
