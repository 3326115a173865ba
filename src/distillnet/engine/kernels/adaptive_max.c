static void run_adaptive_max(const adaptive *s, float *arena)
{
    for (int32_t y = 0; y < s->y.h; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            const int32_t top = window_first(y, s->x.h, s->y.h);
            const int32_t bottom = window_end(y, s->x.h, s->y.h);
            const int32_t left = window_first(x, s->x.w, s->y.w);
            const int32_t right = window_end(x, s->x.w, s->y.w);
            float *out = arena + s->y.at + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel;
            for (int32_t c = 0; c < s->y.c; c += LANES) {
                vec most = splat(-INFINITY);
                for (int32_t i = top; i < bottom; i++)
                    for (int32_t j = left; j < right; j++)
                        most = larger(load(arena + s->x.at + (ptrdiff_t)i * s->x.row +
                                           (ptrdiff_t)j * s->x.pixel + c),
                                      most);
                store_some(out + c, most, s->y.c - c);
            }
        }
}
