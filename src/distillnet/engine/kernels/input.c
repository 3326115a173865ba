/* (C, H, W) as runtimes take images -> (H, W, C) in the arena. */
static void run_input(const tensor *y, rows r, float *arena, const float *in)
{
    for (int32_t c = 0; c < y->c; c++)
        for (int32_t row = r.first; row < r.end; row++) {
            const float *from = in + ((ptrdiff_t)c * y->h + row) * y->w;
            float *out = pixel_at(arena, y, r.out, row, 0) + c;
            for (int32_t at = 0; at < y->w; at++, out += y->pixel)
                *out = *from++;
        }
}
