/* Convolutions, grouped ones and linear layers: P places of the output times G blocks of channels at
 * once, their sums in registers while the taps go by. The places may be any: only those that a
 * mission needs are gathered, so tiles are always full. Borders are zeros in the arena, so that
 * there is no border here. A linear layer is a convolution as large as its input.
 */

/* Places at once for 1, 2, 3 and 4 blocks: as many sums as there are registers for. */
#if LANES == 16
#define GROUPS 4
static const int32_t most_places[GROUPS] = {14, 14, 9, 4};
#define EACH_P4(F, G) F(1, G) F(2, G) F(3, G) F(4, G)
#define EACH_P9(F, G) EACH_P4(F, G) F(5, G) F(6, G) F(7, G) F(8, G) F(9, G)
#define EACH_P14(F, G) EACH_P9(F, G) F(10, G) F(11, G) F(12, G) F(13, G) F(14, G)
#define EACH(F) EACH_P14(F, 1) EACH_P14(F, 2) EACH_P9(F, 3) EACH_P4(F, 4)
#define MOST_PLACES 14
#elif LANES == 8 || defined(__aarch64__)
#define GROUPS 1
static const int32_t most_places[GROUPS] = {6};
#define EACH(F) F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1)
#define MOST_PLACES 6
#elif LANES == 4
#define GROUPS 1
static const int32_t most_places[GROUPS] = {2};
#define EACH(F) F(1, 1) F(2, 1)
#define MOST_PLACES 2
#else
#define GROUPS 1
static const int32_t most_places[GROUPS] = {1};
#define EACH(F) F(1, 1)
#define MOST_PLACES 1
#endif

typedef struct {
    tensor y;
    int32_t x;                      /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;         /* from one output to the next, in floats of the input */
    const segment *segments;        /* all taps */
    int32_t n_segments, taps;
    float lo, hi;
} conv;

typedef struct {
    const conv *layer;
    const segment *segments;
    ptrdiff_t n_segments;
    const float *w;     /* of the first tap */
    ptrdiff_t block;    /* floats from one block of weights to the next */
    const float *bias;
    ptrdiff_t bias_block;
    ptrdiff_t channels; /* to write */
    const uint16_t *bits; /* of the first place; NULL: no channel is switched off anywhere */
    ptrdiff_t words;      /* from one place to the next */
    const float *x[MOST_PLACES];
    float *y[MOST_PLACES];
} tile;

#define TILE(P, G)                                                                             \
    static void tile_##P##x##G(const tile *t)                                                  \
    {                                                                                          \
        vec sum[P][(G) * VECTORS];                                                             \
        const float *x[P];                                                                     \
        const conv *const layer = t->layer;                                                    \
        const ptrdiff_t block = t->block;                                                      \
        UNROLL for (int p = 0; p < (P); p++) x[p] = t->x[p];                                   \
        UNROLL for (int g = 0; g < (G); g++)                                                   \
            UNROLL for (int v = 0; v < VECTORS; v++) {                                         \
                const vec bias = load(t->bias + g * t->bias_block + v * LANES);                \
                UNROLL for (int p = 0; p < (P); p++) sum[p][g * VECTORS + v] = bias;           \
            }                                                                                  \
        for (ptrdiff_t s = 0; s < t->n_segments; s++) {                                        \
            const segment part = t->segments[s];                                               \
            const float *w = t->w + (ptrdiff_t)part.w * BLOCK;                                 \
            const ptrdiff_t end = (ptrdiff_t)part.x + part.n;                                  \
            for (ptrdiff_t k = part.x; k < end; k++, w += BLOCK) {                             \
                vec weight[(G) * VECTORS];                                                     \
                UNROLL for (int g = 0; g < (G); g++)                                           \
                    UNROLL for (int v = 0; v < VECTORS; v++)                                   \
                        weight[g * VECTORS + v] = load(w + g * block + v * LANES);             \
                UNROLL for (int p = 0; p < (P); p++) {                                         \
                    const float value = x[p][k];                                               \
                    UNROLL for (int v = 0; v < (G) * VECTORS; v++)                             \
                        sum[p][v] += value * weight[v];                                        \
                }                                                                              \
            }                                                                                  \
        }                                                                                      \
        const ptrdiff_t channels = t->channels;                                                \
        const float lo = layer->lo, hi = layer->hi;                                            \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                     \
                sum[p][v] = clamp(sum[p][v], lo, hi);                                          \
        if (t->bits != NULL)                                                                   \
            UNROLL for (int p = 0; p < (P); p++)                                               \
                UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                 \
                    sum[p][v] = keep_lanes(sum[p][v], t->bits[p * t->words + v / VECTORS],     \
                                           v % VECTORS * LANES);                               \
        if (channels == (G) * BLOCK) {                                                         \
            UNROLL for (int p = 0; p < (P); p++)                                               \
                UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                 \
                    store(t->y[p] + v * LANES, sum[p][v]);                                     \
            return;                                                                            \
        }                                                                                      \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                     \
                store_some(t->y[p] + v * LANES, sum[p][v], channels - v * LANES);              \
    }
EACH(TILE)

typedef void run_tile(const tile *);
#define ENTRY(P, G) [(G) - 1][(P) - 1] = tile_##P##x##G,
static run_tile *const tiles[GROUPS][MOST_PLACES] = {EACH(ENTRY)};

/* Some blocks of a strip, at some of its places. */
static void conv_blocks(const conv *s, const strip *part, rows r, const some_places *some,
                        float *arena, tile *t, ptrdiff_t first_channel, int32_t group)
{
    const int32_t n = some->count, at_most = most_places[group - 1];
    const int32_t n_tiles = (n + at_most - 1) / at_most;
    const ptrdiff_t in = (ptrdiff_t)s->x + part->in + r.in;
    const ptrdiff_t out = (ptrdiff_t)s->y.at + part->out + first_channel + r.out;
    const span *spans = some->spans;
    int32_t y = r.first - 1, x = 0, end = 0; /* without spans: all rows in turn */
    for (int32_t i = 0; i < n_tiles; i++) {
        const int32_t places = n / n_tiles + (i < n % n_tiles); /* of equal sizes, or one less */
        for (int32_t p = 0, run; p < places; x += run) {
            if (x == end) {
                x = spans == NULL ? 0 : spans->x0;
                y = spans == NULL ? y + 1 : spans->y;
                end = spans == NULL ? s->y.w : spans->x1;
                spans = spans == NULL ? NULL : spans + 1;
            }
            const float *from = arena + (in + (ptrdiff_t)y * s->y_step + (ptrdiff_t)x * s->x_step);
            float *to = arena + (out + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel);
            run = end - x < places - p ? end - x : places - p;
            for (int32_t k = 0; k < run; k++, p++, from += s->x_step, to += s->y.pixel) {
                t->x[p] = from;
                t->y[p] = to;
            }
        }
        tiles[group - 1][places - 1](t);
        if (t->bits != NULL)
            t->bits += places * t->words;
    }
}

static void run_conv(const conv *s, const layer *l, rows r, float *arena, const float *weights)
{
    const int own = l->weights != NULL;
    tile t = {.layer = s, .segments = s->segments, .n_segments = s->n_segments};
    if (l->segments != NULL) {
        t.segments = l->segments;
        t.n_segments = l->n_segments;
    }
    t.block = (ptrdiff_t)((own ? l->taps : s->taps) + 1) * BLOCK;
    t.bias_block = l->biases != NULL ? BLOCK : t.block;
    const float *biases = l->biases;
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const some_places some = places_in(l, part, &s->y, r);
        const int32_t n_blocks = (part->channels + BLOCK - 1) / BLOCK;
        const float *const w = (own ? l->weights : weights) + part->weights;
        for (int32_t b = 0; b < n_blocks && some.count > 0; b += GROUPS) {
            const int32_t group = n_blocks - b < GROUPS ? n_blocks - b : GROUPS;
            const int32_t left = part->channels - b * BLOCK;
            t.channels = left < group * BLOCK ? left : group * BLOCK;
            t.bias = biases != NULL ? biases + b * BLOCK : w + b * t.block;
            t.w = w + b * t.block + BLOCK;
            t.words = n_blocks;
            t.bits = part->bits < 0 ? NULL : l->bits + part->bits + b;
            t.bits = t.bits == NULL ? NULL : t.bits + some.before * t.words;
            conv_blocks(s, part, r, &some, arena, &t, (ptrdiff_t)b * BLOCK, group);
        }
        biases = biases == NULL ? NULL : biases + (ptrdiff_t)n_blocks * BLOCK;
        clear_strip(l, part, &s->y, r, arena);
    }
}
