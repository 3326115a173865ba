/* Zeros for what a mission does not need of a strip. Which places it computes was decided at export. */

/* Everywhere but in the strip's spans. */
INLINE void clear_strip(const layer *l, const strip *s, const tensor *y, uint8_t *arena, int32_t zero)
{
    if (s->spans < 0) /* all places are computed */
        return;
    uint8_t *out = arena + y->at + s->out;
    const span *next = l->spans + s->spans, *const end = next + s->n_spans;
    for (int32_t row = 0; row < y->h; row++, out += y->row) {
        int32_t x = 0;
        for (; next < end && next->y == row; x = next++->x1)
            clear(out, x, next->x0, y->pixel, s->channels, zero);
        clear(out, x, y->w, y->pixel, s->channels, zero);
    }
}
