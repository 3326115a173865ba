
/* Steps that run by turns, row by row: each as soon as the rows that it takes are there. Of a map
 * between them only a window is in memory, as many rows as are needed at once, which slides down.
 */
#define MOST_LINKS 32

typedef struct {
    int16_t rows, border;  /* of the output, and of zeros below it that this step writes, too */
    int16_t reads, writes; /* windows; negative: whole maps */
    int16_t stride, before, reach, least, most; /* row y takes y * stride - before and reach - 1 more */
    uint32_t needs; /* bit i: what it reads is written by link i */
} chain_link;

typedef struct {
    int32_t at, row; /* in the arena */
    int16_t rows, top;
    int32_t zero;
} chain_window;

typedef struct {
    const chain_link *links;
    const chain_window *windows;
    int32_t n_links, n_windows;
    void (*run)(int32_t link, rows r, const given *with);
} chain;

typedef struct {
    int32_t done[MOST_LINKS];  /* rows of each link's output */
    int32_t first[MOST_LINKS]; /* row in each window, those of a border above it below 0 */
} chain_state;

INLINE int32_t first_read(const chain_link *k, int32_t y)
{
    const int32_t first = y * k->stride - k->before;
    return first > k->least ? first : k->least;
}

/* A link whose rows the next row of this one waits for; negative: none. */
static int32_t lacking(const chain *c, const chain_state *at, int32_t n)
{
    const chain_link *const k = c->links + n;
    if (at->done[n] >= k->rows) /* what is left is a border */
        return -1;
    int32_t end = at->done[n] * k->stride - k->before + k->reach;
    end = end < k->most ? end : k->most;
    for (int32_t i = 0; i < n; i++) {
        const int32_t all = c->links[i].rows + c->links[i].border;
        if ((k->needs >> i & 1u) != 0 && at->done[i] < (end < all ? end : all))
            return i;
    }
    return -1;
}

/* Slide a window down, if need be, to where the next row of a link fits. */
static void make_room(const chain *c, chain_state *at, int32_t n, @ELEMENT@ *arena)
{
    const int32_t window = c->links[n].writes, first = at->first[window];
    const chain_window *const w = c->windows + window;
    int32_t keep = at->done[n], end = keep;
    if (keep - first < w->rows)
        return;
    for (int32_t i = 0; i < c->n_links; i++) {
        const chain_link *const k = c->links + i;
        const int32_t next = k->reads == window ? first_read(k, at->done[i]) : at->done[i];
        if ((k->reads == window || k->writes == window) && at->done[i] < k->rows && next < keep)
            keep = next;
        if (k->writes == window && at->done[i] < keep && at->done[i] < k->rows)
            keep = at->done[i];
        if (k->writes == window && at->done[i] > end)
            end = at->done[i];
    }
    if (end > keep)
        memmove(arena + w->at, arena + (w->at + (ptrdiff_t)(keep - first) * w->row),
                (size_t)(end - keep) * (size_t)w->row * sizeof *arena);
    at->first[window] = keep;
}

static void run_link(const chain *c, chain_state *at, int32_t n, const given *with)
{
    const chain_link *const k = c->links + n;
    rows r = {at->done[n], at->done[n] + 1, 0, 0};
    if (k->writes >= 0)
        make_room(c, at, n, with->arena);
    if (k->reads >= 0) {
        const chain_window *const w = c->windows + k->reads;
        r.in = -(at->first[k->reads] + w->top) * w->row;
    }
    if (k->writes >= 0) {
        const chain_window *const w = c->windows + k->writes;
        r.out = -(at->first[k->writes] + w->top) * w->row;
        if (r.first >= k->rows)
            memset(with->arena + (w->at + (ptrdiff_t)(r.first - at->first[k->writes]) * w->row),
                   w->zero, (size_t)w->row * sizeof *with->arena);
    }
    if (r.first < k->rows)
        c->run(n, r, with);
    at->done[n]++;
}

static void run_chain(const chain *c, const given *with)
{
    chain_state at = {{0}, {0}};
    for (int32_t i = 0; i < c->n_windows; i++) {
        const chain_window *const w = c->windows + i;
        at.first[i] = -w->top;
        memset(with->arena + w->at, w->zero,
               (size_t)w->rows * (size_t)w->row * sizeof *with->arena);
    }
    for (int32_t target = c->n_links - 1; target >= 0; target--) {
        if (c->links[target].writes >= 0) /* only as far as others need it */
            continue;
        while (at.done[target] < c->links[target].rows) {
            int32_t n = target;
            for (int32_t other = n; other >= 0; other = lacking(c, &at, n))
                n = other;
            run_link(c, &at, n, with);
            for (int32_t i = target - 1; i >= 0; i--) /* what else can go on */
                while (c->links[i].writes < 0 && at.done[i] < c->links[i].rows &&
                       lacking(c, &at, i) < 0)
                    run_link(c, &at, i, with);
        }
    }
}
