/* Walking over what is active of a layer's output, and zeros for the rest. Which spans there are
 * was decided at export; here is no decision for any neuron.
 */

typedef void (*span_kernel)(const void *step, const strip *, float *arena, const float *weights,
                            int32_t y, int32_t x0, int32_t x1);

static void run_strips(const layer *l, const tensor *y, float *arena, const float *weights,
                       const void *step, span_kernel kernel)
{
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *s = l->strips + i;
        float *out = arena + y->at + s->out;
        if (s->spans < 0) { /* all of it */
            for (int32_t row = 0; row < y->h; row++)
                kernel(step, s, arena, weights, row, 0, y->w);
            continue;
        }
        const uint16_t *bits = s->bits < 0 ? NULL : l->bits + s->bits;
        const span *next = l->spans + s->spans, *const end = next + s->n_spans;
        for (int32_t row = 0; row < y->h; row++, out += y->row) {
            int32_t x = 0;
            for (; next < end && next->y == row; next++) {
                clear(out, x, next->x0, y->pixel, s->channels);
                kernel(step, s, arena, weights, row, next->x0, next->x1);
                x = next->x1;
                if (bits == NULL)
                    continue;
                for (int32_t at = next->x0; at < x; at++)
                    for (int32_t c = 0; c < s->channels; c += BLOCK)
                        keep_bits(out + at * y->pixel + c, *bits++, s->channels - c);
            }
            clear(out, x, y->w, y->pixel, s->channels);
        }
    }
}
