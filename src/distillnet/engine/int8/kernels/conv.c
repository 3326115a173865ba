/* Convolutions, grouped ones and linear layers: P places of the output times G blocks of channels at
 * once, their sums in registers while the taps go by, four at once. The places may be any: only
 * those that a mission needs are gathered, so tiles are always full. Borders are in the arena, so
 * that there is no border here. A linear layer is a convolution as large as its input.
 */

typedef struct {
    tensor y;
    int32_t x;                      /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;         /* from one output to the next, in bytes of the input */
    int32_t rows, row_step;         /* taps: rows of the kernel, */
    int32_t segments, segment_step; /* in each so many, */
    int32_t run;                    /* of so many bytes side by side; filters have zeros up to four */
    output out;
} conv;

typedef struct {
    const conv *layer;
    const uint8_t *w;
    ptrdiff_t block;     /* bytes from one block of filters to the next */
    ptrdiff_t channels;  /* to write */
    const uint8_t *bias; /* of all blocks of the tile, `bias_step` bytes apart */
    ptrdiff_t bias_step;
    const uint8_t *x[MOST_PLACES];
    uint8_t *y[MOST_PLACES];
} tile;

#define SUMS(P, G)                                                                             \
    sums sum[P][(G) * VECTORS];                                                                \
    const uint8_t *x[P];                                                                       \
    const conv *const layer = t->layer;                                                        \
    const ptrdiff_t run = layer->run, block = t->block;                                        \
    const uint8_t *w = t->w;                                                                   \
    UNROLL for (int p = 0; p < (P); p++) x[p] = t->x[p];                                       \
    UNROLL for (int g = 0; g < (G); g++)                                                       \
        UNROLL for (int v = 0; v < VECTORS; v++) {                                             \
            const sums bias = load_sums(t->bias + g * t->bias_step + 4 * v * LANES);           \
            UNROLL for (int p = 0; p < (P); p++) sum[p][g * VECTORS + v] = bias;               \
        }                                                                                      \
    w += HEAD;                                                                                 \
    for (int32_t r = 0; r < layer->rows; r++)                                                  \
        for (int32_t s = 0; s < layer->segments; s++) {                                        \
            const ptrdiff_t first = (ptrdiff_t)r * layer->row_step +                           \
                                    (ptrdiff_t)s * layer->segment_step;                        \
            for (ptrdiff_t k = first; k < first + run; k += 4, w += 4 * BLOCK) {               \
                filters weight[(G) * VECTORS];                                                 \
                UNROLL for (int g = 0; g < (G); g++)                                           \
                    UNROLL for (int v = 0; v < VECTORS; v++)                                   \
                        weight[g * VECTORS + v] = load_filters(w + g * block + 4 * v * LANES); \
                UNROLL for (int p = 0; p < (P); p++) {                                         \
                    const inputs values = load_inputs(x[p] + k);                               \
                    UNROLL for (int v = 0; v < (G) * VECTORS; v++)                             \
                        sum[p][v] = add_products(sum[p][v], values, weight[v]);                \
                }                                                                              \
            }                                                                                  \
        }

#define TILE(P, G)                                                                             \
    static void tile_##P##x##G(const tile *t)                                                  \
    {                                                                                          \
        SUMS(P, G)                                                                             \
        UNROLL for (int g = 0; g < (G); g++) {                                                 \
            const uint8_t *const multipliers = t->w + g * block + 4 * BLOCK;                   \
            UNROLL for (int v = 0; v < VECTORS; v++) {                                         \
                const sums m = load_sums(multipliers + 4 * v * LANES);                         \
                UNROLL for (int p = 0; p < (P); p++)                                           \
                    sum[p][g * VECTORS + v] =                                                  \
                        steps_of(sum[p][g * VECTORS + v], m, &layer->out);                     \
            }                                                                                  \
            UNROLL for (int p = 0; p < (P); p++)                                               \
                store_block(t->y[p] + g * BLOCK, sum[p] + g * VECTORS,                         \
                            t->channels - g * BLOCK);                                          \
        }                                                                                      \
    }
EACH(TILE)

typedef void run_tile(const tile *);
#define ENTRY(P, G) [(G) - 1][(P) - 1] = tile_##P##x##G,
static run_tile *const tiles[GROUPS][MOST_PLACES] = {EACH(ENTRY)};

/* Some blocks of a strip, at some of its places. */
static void conv_blocks(const conv *s, const strip *part, rows r, const some_places *some,
                        uint8_t *arena, tile *t, ptrdiff_t first_channel, int32_t group)
{
    const int32_t n = some->count, at_most = most_places[group - 1];
    const int32_t n_tiles = (n + at_most - 1) / at_most;
    const ptrdiff_t in = (ptrdiff_t)s->x + part->in + r.in;
    const ptrdiff_t out = (ptrdiff_t)s->y.at + part->out + first_channel + r.out;
    const span *spans = some->spans;
    int32_t y = r.first - 1, x = 0, end = 0; /* without spans: all rows in turn */
    for (int32_t i = 0; i < n_tiles; i++) {
        const int32_t places = n / n_tiles + (i < n % n_tiles); /* of equal sizes, or one less */
        for (int32_t p = 0; p < places; p++, x++) {
            if (x == end) {
                x = spans == NULL ? 0 : spans->x0;
                y = spans == NULL ? y + 1 : spans->y;
                end = spans == NULL ? s->y.w : spans->x1;
                spans = spans == NULL ? NULL : spans + 1;
            }
            t->x[p] = arena + (in + (ptrdiff_t)y * s->y_step + (ptrdiff_t)x * s->x_step);
            t->y[p] = arena + (out + (ptrdiff_t)y * s->y.row + (ptrdiff_t)x * s->y.pixel);
        }
        tiles[group - 1][places - 1](t);
    }
}

/* Bytes of one block. */
INLINE ptrdiff_t block_bytes(const conv *s)
{
    return HEAD + (ptrdiff_t)s->rows * s->segments * ((s->run + 3) / 4 * 4) * BLOCK;
}

#ifdef SIGNED_INPUTS
/* Biases for inputs less 128: each filter's sum, 128 times, is what they lack. */
static void half_filters(const conv *s, const uint8_t *w, uint8_t *bias)
{
    const uint8_t *const end = w + block_bytes(s);
    int32_t all[BLOCK];
    memcpy(all, w, sizeof all);
    for (w += HEAD; w < end; w += 4 * BLOCK)
        for (int32_t i = 0; i < BLOCK; i++)
            all[i] += 128 * ((int8_t)w[4 * i] + (int8_t)w[4 * i + 1] + (int8_t)w[4 * i + 2] +
                             (int8_t)w[4 * i + 3]);
    memcpy(bias, all, sizeof all);
}
#endif

static void run_conv(const conv *s, const layer *l, rows r, uint8_t *arena, const uint8_t *weights)
{
    tile t = {.layer = s, .block = block_bytes(s)};
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const some_places some = places_in(l, part, &s->y, r);
        const int32_t n_blocks = (part->channels + BLOCK - 1) / BLOCK;
        for (int32_t b = 0; b < n_blocks && some.count > 0; b += GROUPS) {
            const int32_t group = n_blocks - b < GROUPS ? n_blocks - b : GROUPS;
            const int32_t left = part->channels - b * BLOCK;
            t.channels = left < group * BLOCK ? left : group * BLOCK;
            t.w = weights + part->weights + b * t.block;
            t.bias = t.w;
            t.bias_step = t.block;
#ifdef SIGNED_INPUTS
            uint8_t bias[GROUPS * 4 * BLOCK];
            half_filters(s, t.w, bias);
            t.bias = bias;
            t.bias_step = 4 * BLOCK;
#endif
            conv_blocks(s, part, r, &some, arena, &t, (ptrdiff_t)b * BLOCK, group);
        }
        fill_strip(l, part, &s->y, r, arena, s->out.zero);
    }
}
