/* (H, W, C) -> a vector in torch's order, (C, H, W). */
typedef struct {
    tensor x;
    int32_t y;
} flattening;

static void run_flatten(const flattening *s, float *arena)
{
    float *y = arena + s->y;
    for (int32_t c = 0; c < s->x.c; c++)
        for (int32_t row = 0; row < s->x.h; row++)
            for (int32_t at = 0; at < s->x.w; at++)
                *y++ = arena[s->x.at + c + (ptrdiff_t)row * s->x.row + (ptrdiff_t)at * s->x.pixel];
}
