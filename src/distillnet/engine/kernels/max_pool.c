static void run_max_pool(const pool *s, rows r, float *arena)
{
    const int32_t moved = r.in / s->x.row;
    for (int32_t y = r.first; y < r.end; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            int32_t top = y * s->stride_h - s->pad_h, left = x * s->stride_w - s->pad_w;
            const int32_t bottom = least(top + (s->kernel_h - 1) * s->dilation_h + 1, s->x.h);
            const int32_t right = least(left + (s->kernel_w - 1) * s->dilation_w + 1, s->x.w);
            while (top < 0)
                top += s->dilation_h;
            while (left < 0)
                left += s->dilation_w;
            const float *in = arena + s->x.at;
            float *out = pixel_at(arena, &s->y, r.out, y, x);
            for (int32_t c = 0; c < s->y.c; c += LANES) {
                vec most = splat(-INFINITY);
                for (int32_t i = top + moved; i < bottom + moved; i += s->dilation_h)
                    for (int32_t j = left; j < right; j += s->dilation_w)
                        most = larger(load(in + (ptrdiff_t)i * s->x.row +
                                           (ptrdiff_t)j * s->x.pixel + c),
                                      most);
                store_some(out + c, most, s->y.c - c);
            }
        }
}
