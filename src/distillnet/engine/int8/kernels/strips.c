/* Zeros for what a mission does not need of a strip: everywhere but in its spans, and within them
 * where channels of the strip differ. Which spans there are was decided at export.
 */
static void fill_strip(const layer *l, const strip *s, const tensor *y, uint8_t *arena, int32_t zero)
{
    if (s->spans < 0) /* all of it is needed */
        return;
    uint8_t *out = arena + y->at + s->out;
    const uint16_t *bits = s->bits < 0 ? NULL : l->bits + s->bits;
    const span *next = l->spans + s->spans, *const end = next + s->n_spans;
    for (int32_t row = 0; row < y->h; row++, out += y->row) {
        int32_t x = 0;
        for (; next < end && next->y == row; next++) {
            clear(out, x, next->x0, y->pixel, s->channels, zero);
            x = next->x1;
            if (bits == NULL)
                continue;
            for (int32_t at = next->x0; at < x; at++)
                for (int32_t c = 0; c < s->channels; c += WORD)
                    keep_bits(out + at * y->pixel + c, *bits++, s->channels - c, zero);
        }
        clear(out, x, y->w, y->pixel, s->channels, zero);
    }
}
