/* A layer of scores, on a map of one place: its sums as they are, in float32. */
typedef struct {
    conv layer;    /* y.at: where the floats go; `out` is not used */
    int32_t units; /* what 1 in each sum stands for, float32, in the weights */
    float lo, hi;
} conv_scores;

static void sums_of_block(const tile *t, int32_t *result)
{
    SUMS(1, 1)
    memcpy(result, sum, sizeof sum);
}

static void run_conv_scores(const conv_scores *s, const layer *l, uint8_t *arena,
                            const uint8_t *weights)
{
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        for (int32_t c = 0; c < part->channels; c += BLOCK) {
            tile t = {.layer = &s->layer, .block = block_bytes(&s->layer)};
            t.w = t.bias = weights + part->weights + c / BLOCK * t.block;
            t.x[0] = arena + s->layer.x + part->in;
#ifdef SIGNED_INPUTS
            uint8_t bias[4 * BLOCK];
            half_filters(&s->layer, t.w, bias);
            t.bias = bias;
#endif
            int32_t sum[BLOCK] = {0};
            if (part->places > 0)
                sums_of_block(&t, sum);
            for (int32_t k = 0; k < BLOCK && c + k < part->channels; k++) {
                const int32_t at = 4 * (part->out + c + k);
                float unit;
                memcpy(&unit, weights + s->units + at, sizeof unit);
                const float score = (float)sum[k] * unit;
                const float low = score < s->lo ? s->lo : score;
                const float all = low > s->hi ? s->hi : low;
                memcpy(arena + s->layer.y.at + at, &all, sizeof all);
            }
        }
    }
}
