/* Zeros for what a mission does not need of a strip. Which places it computes was decided at export. */

/* Everywhere but in the strip's spans. */
static void clear_strip(const layer *l, const strip *s, const tensor *y, float *arena)
{
    if (s->spans < 0) /* all places are computed */
        return;
    float *out = arena + y->at + s->out;
    const span *next = l->spans + s->spans, *const end = next + s->n_spans;
    for (int32_t row = 0; row < y->h; row++, out += y->row) {
        int32_t x = 0;
        for (; next < end && next->y == row; x = next++->x1)
            clear(out, x, next->x0, y->pixel, s->channels);
        clear(out, x, y->w, y->pixel, s->channels);
    }
}
