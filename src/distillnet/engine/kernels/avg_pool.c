INLINE vec sum_window(const float *in, const tensor *x, int32_t top, int32_t bottom, int32_t left,
                      int32_t right)
{
    vec sum = splat(0.0f);
    for (int32_t i = top; i < bottom; i++)
        for (int32_t j = left; j < right; j++)
            sum += load(in + (ptrdiff_t)i * x->row + (ptrdiff_t)j * x->pixel);
    return sum;
}

static void run_avg_pool(const pool *s, rows r, float *arena)
{
    const int32_t moved = r.in / s->x.row;
    for (int32_t y = r.first; y < r.end; y++)
        for (int32_t x = 0; x < s->y.w; x++) {
            int32_t top = y * s->stride_h - s->pad_h, left = x * s->stride_w - s->pad_w;
            int32_t bottom = least(top + s->kernel_h, s->x.h + s->pad_h);
            int32_t right = least(left + s->kernel_w, s->x.w + s->pad_w);
            int32_t area = (bottom - top) * (right - left);
            top = top < 0 ? 0 : top;
            left = left < 0 ? 0 : left;
            bottom = least(bottom, s->x.h);
            right = least(right, s->x.w);
            if (!s->count_pad)
                area = (bottom - top) * (right - left);
            const float share = 1.0f / (float)(s->divisor > 0 ? s->divisor : area);
            float *out = pixel_at(arena, &s->y, r.out, y, x);
            for (int32_t c = 0; c < s->y.c; c += LANES) {
                const vec sum = sum_window(arena + s->x.at + c, &s->x, top + moved,
                                           bottom + moved, left, right);
                store_some(out + c, sum * splat(share), s->y.c - c);
            }
        }
}
