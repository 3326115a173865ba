/* The largest of a window's pixels, of `vectors` vectors of channels at once. */
INLINE void window_max(const pool *s, const float *in, int32_t top, int32_t bottom, int32_t left,
                       int32_t right, float *out, ptrdiff_t channels, int vectors)
{
    vec most[4];
    UNROLL for (int v = 0; v < vectors; v++) most[v] = splat(-INFINITY);
    for (int32_t i = top; i < bottom; i += s->dilation_h) {
        const float *at = in + (ptrdiff_t)i * s->x.row + (ptrdiff_t)left * s->x.pixel;
        const ptrdiff_t step = (ptrdiff_t)s->x.pixel * s->dilation_w;
        for (int32_t j = left; j < right; j += s->dilation_w, at += step)
            UNROLL for (int v = 0; v < vectors; v++)
                most[v] = larger(load(at + v * LANES), most[v]);
    }
    UNROLL for (int v = 0; v < vectors; v++)
        store_some(out + v * LANES, most[v], channels - v * LANES);
}

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
            const float *in = arena + s->x.at + (ptrdiff_t)moved * s->x.row;
            float *out = pixel_at(arena, &s->y, r.out, y, x);
            int32_t c = 0;
            for (; c + 4 * LANES <= s->y.c; c += 4 * LANES)
                window_max(s, in + c, top, bottom, left, right, out + c, s->y.c - c, 4);
            for (; c < s->y.c; c += LANES)
                window_max(s, in + c, top, bottom, left, right, out + c, s->y.c - c, 1);
        }
}
