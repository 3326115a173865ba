/* Convolutions, grouped ones and linear layers: P places of the output times G blocks of channels at
 * once, their sums in registers while the taps go by, four at once. The places may be any: only
 * those that a mission needs are gathered, so tiles are always full. Borders are in the arena, so
 * that there is no border here. A linear layer is a convolution as large as its input.
 */

typedef struct {
    tensor y;
    int32_t x;                      /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;         /* from one output to the next, in bytes of the input */
    const segment *segments;        /* all taps, in fours: filters have zeros behind each */
    int32_t n_segments, taps;
    output out;
} conv;

typedef struct {
    const conv *layer;
    const segment *segments;
    ptrdiff_t n_segments;
    const uint8_t *w;
    ptrdiff_t block;     /* bytes from one block of filters to the next */
    ptrdiff_t channels;  /* to write */
    const uint8_t *bias; /* of all blocks of the tile, `bias_step` bytes apart */
    ptrdiff_t bias_step;
    bitmap bits;
    ptrdiff_t place; /* the first of the tile, among those of its strip */
    ptrdiff_t first; /* channel of the tile, within its strip */
    ptrdiff_t rounds; /* through all taps, each for as many places */
    const uint8_t *x[MOST_PLACES * MOST_ROUNDS];
    uint8_t *y[MOST_PLACES * MOST_ROUNDS];
} tile;

/* Taps that lie side by side. */
#ifdef OWN_RUN
#define ADD_RUN(P, G) add_run(P, G, sum[0], x, part.x, part.n, w, block);
#else
#define ADD_RUN(P, G)                                                                          \
    const ptrdiff_t end = (ptrdiff_t)part.x + part.n;                                          \
    for (ptrdiff_t k = part.x; k < end; k += 4, w += 4 * BLOCK) {                              \
        filters weight[(G) * VECTORS];                                                         \
        UNROLL for (int g = 0; g < (G); g++)                                                   \
            UNROLL for (int v = 0; v < VECTORS; v++)                                           \
                weight[g * VECTORS + v] = load_filters(w + g * block + 4 * v * LANES);         \
        UNROLL for (int p = 0; p < (P); p++) {                                                 \
            const inputs values = load_inputs(x[p] + k);                                       \
            UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                     \
                sum[p][v] = add_products(sum[p][v], values, weight[v]);                        \
        }                                                                                      \
    }
#endif

/* Of the places from `at` on. */
#define SUMS(P, G, at)                                                                         \
    sums sum[P][(G) * VECTORS];                                                                \
    const uint8_t *x[P];                                                                       \
    const ptrdiff_t block = t->block;                                                          \
    UNROLL for (int p = 0; p < (P); p++) x[p] = t->x[(at) + p];                                \
    UNROLL for (int g = 0; g < (G); g++)                                                       \
        UNROLL for (int v = 0; v < VECTORS; v++) {                                             \
            const sums bias = load_sums(t->bias + g * t->bias_step + 4 * v * LANES);           \
            UNROLL for (int p = 0; p < (P); p++) sum[p][g * VECTORS + v] = bias;               \
        }                                                                                      \
    for (ptrdiff_t s = 0; s < t->n_segments; s++) {                                            \
        const segment part = t->segments[s];                                                   \
        const uint8_t *w = t->w + HEAD + (ptrdiff_t)part.w * BLOCK;                            \
        ADD_RUN(P, G)                                                                          \
    }

#define TILE(P, G)                                                                             \
    static void tile_##P##x##G(const tile *t)                                                  \
    {                                                                                          \
        const output out = t->layer->out; /* bytes that are stored might be its own */         \
        const ptrdiff_t channels = t->channels, end = (P) * ROUNDS(t);                         \
        const int some_off = t->bits.n > 0;                                                    \
        for (ptrdiff_t at = 0; at < end; at += (P)) {                                          \
            SUMS(P, G, at)                                                                     \
            UNROLL for (int g = 0; g < (G); g++) {                                             \
                const uint8_t *const multipliers = t->w + g * block + 4 * BLOCK;               \
                UNROLL for (int v = 0; v < VECTORS; v++) {                                     \
                    const sums m = load_sums(multipliers + 4 * v * LANES);                     \
                    UNROLL for (int p = 0; p < (P); p++)                                       \
                        sum[p][g * VECTORS + v] =                                              \
                            steps_of(sum[p][g * VECTORS + v], m, &out);                        \
                }                                                                              \
                const ptrdiff_t first = t->first + g * BLOCK;                                  \
                if (some_off)                                                                  \
                    UNROLL for (int p = 0; p < (P); p++) {                                     \
                        const uint16_t *const words = words_at(&t->bits, t->place + at + p);   \
                        const uint32_t bits = (uint32_t)words[first / WORD] >> first % WORD;   \
                        UNROLL for (int v = 0; v < VECTORS; v++)                               \
                            sum[p][g * VECTORS + v] = keep_lanes(sum[p][g * VECTORS + v],      \
                                                                 bits >> v * LANES, out.zero); \
                    }                                                                          \
                UNROLL for (int p = 0; p < (P); p++)                                           \
                    store_block(t->y[at + p] + g * BLOCK, sum[p] + g * VECTORS,                \
                                channels - g * BLOCK);                                         \
            }                                                                                  \
        }                                                                                      \
    }
EACH(TILE)

typedef void run_tile(const tile *);
#define ENTRY(P, G) [(G) - 1][(P) - 1] = tile_##P##x##G,
static run_tile *const tiles[GROUPS][MOST_PLACES] = {EACH(ENTRY)};

/* Some blocks of a strip, at some of its places. */
static void conv_blocks(const conv *s, const strip *part, rows r, const some_places *some,
                        uint8_t *arena, tile *t, int32_t group)
{
    const int32_t n = some->count, at_most = most_places[group - 1];
    const ptrdiff_t in = (ptrdiff_t)s->x + part->in + r.in;
    const ptrdiff_t out = (ptrdiff_t)s->y.at + part->out + t->first + r.out;
    const span *spans = some->spans;
    const uint8_t *from = arena;
    uint8_t *to = arena;
    int32_t y = r.first, left = 0; /* of a row, or of a span */
    for (int32_t i = 0, done = 0; done < n; i++) {
#if MOST_ROUNDS > 1
        const int32_t at_once = least(n - done, at_most);
        t->rounds = least((n - done) / at_once, MOST_ROUNDS);
        (void)i;
#else
        const int32_t n_tiles = (n + at_most - 1) / at_most; /* of equal sizes, or one less */
        const int32_t at_once = n / n_tiles + (i < n % n_tiles);
#endif
        const int32_t places = at_once * (int32_t)ROUNDS(t);
        for (int32_t p = 0; p < places; p++, left--, from += s->x_step, to += s->y.pixel) {
            if (left == 0) {
                const int32_t x = spans == NULL ? 0 : spans->x0;
                left = (spans == NULL ? s->y.w : spans->x1) - x;
                y = spans == NULL ? y : spans->y;
                from = arena + (in + (ptrdiff_t)y * s->y_step + (ptrdiff_t)x * s->x_step);
                to = arena + (out + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel);
                y++;
                spans = spans == NULL ? NULL : spans + 1;
            }
            t->x[p] = from;
            t->y[p] = to;
        }
        tiles[group - 1][at_once - 1](t);
        t->place += places;
        done += places;
    }
}

/* Bytes of a block of filters of so many taps. */
INLINE ptrdiff_t block_bytes(int32_t taps) { return HEAD + (ptrdiff_t)taps * BLOCK; }

/* A layer under a mission: which taps count, and whose filters they are. */
INLINE tile tile_of(const conv *s, const layer *l)
{
    tile t = {.layer = s, .segments = s->segments, .n_segments = s->n_segments};
    if (l->segments != NULL) {
        t.segments = l->segments;
        t.n_segments = l->n_segments;
    }
    t.block = block_bytes(l->weights != NULL ? l->taps : s->taps);
    return t;
}

#ifdef SIGNED_INPUTS
/* Biases for inputs less 128: the sum of each filter's taps, 128 times, is what they lack. */
static void half_filters(tile *t, int32_t group, uint8_t *half)
{
    for (int32_t g = 0; g < group; g++) {
        int32_t all[BLOCK];
        memcpy(all, t->bias + g * t->bias_step, sizeof all);
        for (ptrdiff_t s = 0; s < t->n_segments; s++) {
            const segment part = t->segments[s];
            const uint8_t *w = t->w + g * t->block + HEAD + (ptrdiff_t)part.w * BLOCK;
            for (int32_t k = 0; k < part.n; k += 4, w += 4 * BLOCK)
                for (int32_t i = 0; i < BLOCK; i++)
                    all[i] += 128 * ((int8_t)w[4 * i] + (int8_t)w[4 * i + 1] +
                                     (int8_t)w[4 * i + 2] + (int8_t)w[4 * i + 3]);
        }
        memcpy(half + 4 * BLOCK * g, all, sizeof all);
    }
    t->bias = half;
    t->bias_step = 4 * BLOCK;
}
#endif

static void run_conv(const conv *s, const layer *l, rows r, uint8_t *arena, const uint8_t *weights)
{
    tile t = tile_of(s, l);
    const int32_t *biases = l->biases;
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const some_places some = places_in(l, part, &s->y, r);
        const int32_t n_blocks = (part->channels + BLOCK - 1) / BLOCK;
        const uint8_t *const w = (l->weights != NULL ? l->weights : weights) + part->weights;
        t.bits = bitmap_of(l, part);
        for (int32_t b = 0; b < n_blocks && some.count > 0; b += GROUPS) {
            const int32_t group = n_blocks - b < GROUPS ? n_blocks - b : GROUPS;
            const int32_t left = part->channels - b * BLOCK;
            t.channels = left < group * BLOCK ? left : group * BLOCK;
            t.w = w + b * t.block;
            t.bias = biases != NULL ? (const uint8_t *)(biases + b * BLOCK) : t.w;
            t.bias_step = biases != NULL ? 4 * BLOCK : t.block;
#ifdef SIGNED_INPUTS
            uint8_t half[GROUPS * 4 * BLOCK];
            half_filters(&t, group, half);
#endif
            t.place = some.before;
            t.first = (ptrdiff_t)b * BLOCK;
            conv_blocks(s, part, r, &some, arena, &t, group);
        }
        biases = biases == NULL ? NULL : biases + (ptrdiff_t)n_blocks * BLOCK;
        clear_strip(l, part, &s->y, r, arena, s->out.zero);
    }
}
