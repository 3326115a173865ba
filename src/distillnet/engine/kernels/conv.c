/* Convolutions, grouped ones and linear layers: P pixels of a row times G blocks of channels at
 * once, their sums in registers while the taps go by. Borders are zeros in the arena, so that there
 * is no border here. A linear layer is a convolution as large as its input.
 */

/* Pixels at once for 1, 2, 3 and 4 blocks: as many sums as there are registers for. */
#if LANES == 16
#define GROUPS 4
static const int32_t most_pixels[GROUPS] = {14, 14, 9, 7};
#define EACH_P14(F, G) \
    F(1, G) F(2, G) F(3, G) F(4, G) F(5, G) F(6, G) F(7, G) F(8, G) F(9, G) F(10, G) F(11, G) \
    F(12, G) F(13, G) F(14, G)
#define EACH_P9(F, G) F(1, G) F(2, G) F(3, G) F(4, G) F(5, G) F(6, G) F(7, G) F(8, G) F(9, G)
#define EACH_P7(F, G) F(1, G) F(2, G) F(3, G) F(4, G) F(5, G) F(6, G) F(7, G)
#define EACH(F) EACH_P14(F, 1) EACH_P14(F, 2) EACH_P9(F, 3) EACH_P7(F, 4)
#define MOST_PIXELS 14
#elif LANES == 8 || defined(__aarch64__)
#define GROUPS 1
static const int32_t most_pixels[GROUPS] = {6};
#define EACH(F) F(1, 1) F(2, 1) F(3, 1) F(4, 1) F(5, 1) F(6, 1)
#define MOST_PIXELS 6
#elif LANES == 4
#define GROUPS 1
static const int32_t most_pixels[GROUPS] = {2};
#define EACH(F) F(1, 1) F(2, 1)
#define MOST_PIXELS 2
#else
#define GROUPS 1
static const int32_t most_pixels[GROUPS] = {1};
#define EACH(F) F(1, 1)
#define MOST_PIXELS 1
#endif

typedef struct {
    tensor y;
    int32_t x;                    /* of the first tap of the first output, in the arena */
    int32_t y_step, x_step;       /* from one output to the next, in floats of the input */
    int32_t rows, row_step;       /* taps: rows of the kernel, */
    int32_t segments, segment_step; /* in each so many, */
    int32_t run;                  /* of so many floats side by side */
    float lo, hi;
} conv;

typedef struct {
    const conv *layer;
    const float *x, *w; /* of this tile */
    float *y;
    ptrdiff_t block;    /* floats from one block of weights to the next */
    ptrdiff_t channels; /* to write */
} tile;

#define TILE(P, G)                                                                             \
    static void tile_##P##x##G(const tile *t)                                                  \
    {                                                                                          \
        vec sum[P][(G) * VECTORS];                                                             \
        const conv *const layer = t->layer;                                                    \
        const ptrdiff_t step = layer->x_step, run = layer->run, block = t->block;              \
        const float *w = t->w, *x_row = t->x;                                                  \
        UNROLL for (int g = 0; g < (G); g++)                                                   \
            UNROLL for (int v = 0; v < VECTORS; v++) {                                         \
                const vec bias = load(w + g * block + v * LANES);                              \
                UNROLL for (int p = 0; p < (P); p++) sum[p][g * VECTORS + v] = bias;           \
            }                                                                                  \
        w += BLOCK;                                                                            \
        for (int32_t r = 0; r < layer->rows; r++, x_row += layer->row_step) {                  \
            const float *x_segment = x_row;                                                    \
            for (int32_t s = 0; s < layer->segments; s++, x_segment += layer->segment_step) {  \
                const float *x = x_segment;                                                    \
                for (ptrdiff_t k = 0; k < run; k++, x++, w += BLOCK) {                         \
                    vec weight[(G) * VECTORS];                                                 \
                    UNROLL for (int g = 0; g < (G); g++)                                       \
                        UNROLL for (int v = 0; v < VECTORS; v++)                               \
                            weight[g * VECTORS + v] = load(w + g * block + v * LANES);         \
                    UNROLL for (int p = 0; p < (P); p++) {                                     \
                        const float value = x[p * step];                                       \
                        UNROLL for (int v = 0; v < (G) * VECTORS; v++)                         \
                            sum[p][v] += value * weight[v];                                    \
                    }                                                                          \
                }                                                                              \
            }                                                                                  \
        }                                                                                      \
        const ptrdiff_t pixel = layer->y.pixel, channels = t->channels;                        \
        const float lo = layer->lo, hi = layer->hi;                                            \
        float *y = t->y;                                                                       \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                     \
                sum[p][v] = clamp(sum[p][v], lo, hi);                                          \
        if (channels == (G) * BLOCK) {                                                         \
            UNROLL for (int p = 0; p < (P); p++)                                               \
                UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                 \
                    store(y + p * pixel + v * LANES, sum[p][v]);                               \
            return;                                                                            \
        }                                                                                      \
        float all[P][(G) * BLOCK];                                                             \
        UNROLL for (int p = 0; p < (P); p++)                                                   \
            UNROLL for (int v = 0; v < (G) * VECTORS; v++)                                     \
                store(&all[p][v * LANES], sum[p][v]);                                          \
        for (int p = 0; p < (P); p++)                                                          \
            for (ptrdiff_t c = 0; c < channels; c++)                                           \
                y[p * pixel + c] = all[p][c];                                                  \
    }
EACH(TILE)

typedef void run_tile(const tile *);
#define ENTRY(P, G) [(G) - 1][(P) - 1] = tile_##P##x##G,
static run_tile *const tiles[GROUPS][MOST_PIXELS] = {EACH(ENTRY)};

/* Outputs x0..x1 of row y, for the channels of a strip. */
static void conv_span(const void *step, const strip *part, float *arena, const float *weights,
                      int32_t y, int32_t x0, int32_t x1)
{
    const conv *const s = step;
    const int32_t n_blocks = (part->channels + BLOCK - 1) / BLOCK;
    tile t = {.layer = s};
    t.block = (ptrdiff_t)(s->rows * s->segments * s->run + 1) * BLOCK;
    for (int32_t b = 0; b < n_blocks; b += GROUPS) {
        const int32_t group = n_blocks - b < GROUPS ? n_blocks - b : GROUPS;
        const int32_t n = x1 - x0, at_most = most_pixels[group - 1];
        const int32_t n_tiles = (n + at_most - 1) / at_most;
        const int32_t left = part->channels - b * BLOCK;
        t.channels = left < group * BLOCK ? left : group * BLOCK;
        t.w = weights + part->weights + b * t.block;
        t.x = arena + s->x + part->in + (ptrdiff_t)y * s->y_step + (ptrdiff_t)x0 * s->x_step;
        t.y = arena + s->y.at + part->out + b * BLOCK + (ptrdiff_t)y * s->y.row +
              (ptrdiff_t)x0 * s->y.pixel;
        for (int32_t i = 0; i < n_tiles; i++) { /* of equal widths, or one less */
            const int32_t pixels = n / n_tiles + (i < n % n_tiles);
            tiles[group - 1][pixels - 1](&t);
            t.x += (ptrdiff_t)pixels * s->x_step;
            t.y += (ptrdiff_t)pixels * s->y.pixel;
        }
    }
}

static void run_conv(const conv *s, const layer *l, float *arena, const float *weights)
{
    run_strips(l, &s->y, arena, weights, s, conv_span);
}
