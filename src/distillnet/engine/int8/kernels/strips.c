/* Zeros for what a mission does not need of a strip. Which places it computes was decided at export. */

/* Which channels of a strip are kept, place by place of its spans: words of 16 bits, as many for each
 * place as the strip has 16 channels. First stands how many places differ in theirs, then the words of
 * these, then a byte for each place; 0, and then the words of all places.
 */
typedef struct {
    const uint16_t *words;
    const uint8_t *which; /* NULL: each place has words of its own */
    ptrdiff_t n;          /* words of a place; 0: all channels are kept */
} bitmap;

INLINE bitmap bitmap_of(const layer *l, const strip *s)
{
    bitmap b = {NULL, NULL, 0};
    if (s->bits >= 0) {
        const uint16_t *const kinds = l->bits + s->bits;
        b.n = (s->channels + WORD - 1) / WORD;
        b.words = kinds + 1;
        b.which = *kinds == 0 ? NULL : (const uint8_t *)(b.words + *kinds * b.n);
    }
    return b;
}

INLINE const uint16_t *words_at(const bitmap *b, ptrdiff_t place)
{
    return b->words + (b->which == NULL ? place : b->which[place]) * b->n;
}

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
