/* What a mission drops of a strip. */

/* Zeros everywhere but in the strip's spans. */
static void clear_strip(const layer *l, const strip *s, const tensor *y, rows r, float *arena)
{
    if (s->spans < 0) /* all places are computed */
        return;
    const some_places some = places_in(l, s, y, r);
    const span *next = some.spans;
    for (int32_t row = r.first; row < r.end; row++) {
        float *const out = pixel_at(arena, y, r.out, row, 0) + s->out;
        int32_t x = 0;
        for (; next < some.end && next->y == row; x = next++->x1)
            clear(out, x, next->x0, y->pixel, s->channels);
        clear(out, x, y->w, y->pixel, s->channels);
    }
}
