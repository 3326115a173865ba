/* Which of a strip's places a mission needs was decided at export. */

/* A strip's places within rows: how many, how many before them, and the first of their spans, NULL
 * where all places are computed.
 */
typedef struct {
    int32_t count, before;
    const span *spans, *end;
} some_places;

static some_places places_in(const layer *l, const strip *part, const tensor *y, rows r)
{
    if (part->spans < 0)
        return (some_places){(r.end - r.first) * y->w, 0, NULL, NULL};
    const span *next = l->spans + part->spans, *const end = next + part->n_spans;
    if (r.first == 0 && r.end == y->h)
        return (some_places){part->places, 0, next, end};
    some_places some = {0, 0, NULL, NULL};
    for (; next < end && next->y < r.first; next++)
        some.before += next->x1 - next->x0;
    some.spans = next;
    for (; next < end && next->y < r.end; next++)
        some.count += next->x1 - next->x0;
    some.end = next;
    return some;
}

/* Zeros for what a mission does not need of a strip: everywhere but in its spans, and within them
 * where channels of the strip differ.
 */
static void fill_strip(const layer *l, const strip *s, const tensor *y, rows r, uint8_t *arena,
                       int32_t zero)
{
    if (s->spans < 0) /* all of it is needed */
        return;
    const some_places some = places_in(l, s, y, r);
    const span *next = some.spans;
    const uint16_t *bits = s->bits < 0 ? NULL : l->bits + s->bits;
    bits = bits == NULL ? NULL : bits + (ptrdiff_t)some.before * ((s->channels + WORD - 1) / WORD);
    for (int32_t row = r.first; row < r.end; row++) {
        uint8_t *const out = pixel_at(arena, y, r.out, row, 0) + s->out;
        int32_t x = 0;
        for (; next < some.end && next->y == row; next++) {
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
