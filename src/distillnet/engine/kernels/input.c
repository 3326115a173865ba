/* (C, H, W) as runtimes take images -> (H, W, C) in the arena. */
static void run_input(const tensor *y, float *arena, const float *in)
{
    for (int32_t c = 0; c < y->c; c++)
        for (int32_t row = 0; row < y->h; row++) {
            float *out = arena + y->at + c + (ptrdiff_t)row * y->row;
            for (int32_t at = 0; at < y->w; at++, out += y->pixel)
                *out = *in++;
        }
}
