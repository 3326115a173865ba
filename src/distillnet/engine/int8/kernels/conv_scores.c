/* A layer of scores, on a map of one place: its sums as they are, in float32. Where other layers have
 * multipliers, its filters have what 1 in each sum stands for, float32.
 */
typedef struct {
    conv layer; /* y.at: where the floats go; `out` is not used */
    float lo, hi;
} conv_scores;

static void sums_of_block(const tile *t, int32_t *result)
{
    SUMS(1, 1, 0)
    memcpy(result, sum, sizeof sum);
}

static void run_conv_scores(const conv_scores *s, const layer *l, uint8_t *arena,
                            const uint8_t *weights)
{
    tile t = tile_of(&s->layer, l);
    const int32_t *biases = l->biases;
    for (int32_t i = 0; i < l->n_strips; i++) {
        const strip *part = l->strips + i;
        const uint8_t *const w = (l->weights != NULL ? l->weights : weights) + part->weights;
        for (int32_t c = 0; c < part->channels; c += BLOCK) {
            t.w = w + c / BLOCK * t.block;
            t.bias = biases != NULL ? (const uint8_t *)(biases + c) : t.w;
            t.bias_step = 0;
            t.x[0] = arena + s->layer.x + part->in;
            int32_t sum[BLOCK] = {0};
            if (part->places > 0) {
#ifdef SIGNED_INPUTS
                uint8_t half[4 * BLOCK];
                half_filters(&t, 1, half);
#endif
                sums_of_block(&t, sum);
            }
            for (int32_t k = 0; k < BLOCK && c + k < part->channels; k++) {
                float unit = 0.0f;
                if (part->places > 0)
                    memcpy(&unit, t.w + 4 * (BLOCK + k), sizeof unit);
                const float score = (float)sum[k] * unit;
                const float low = score < s->lo ? s->lo : score;
                const float all = low > s->hi ? s->hi : low;
                memcpy(arena + s->layer.y.at + 4 * (part->out + c + k), &all, sizeof all);
            }
        }
        if (biases != NULL)
            biases += (part->channels + BLOCK - 1) / BLOCK * BLOCK;
    }
}
