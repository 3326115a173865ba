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
        return (some_places){(r.end - r.first) * y->w, r.first * y->w, NULL, NULL};
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
