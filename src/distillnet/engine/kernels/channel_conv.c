/* A convolution over neighbouring channels of features, as an efficient gate has it. */

typedef struct {
    tensor x, y;
    int32_t reach; /* how far its windows go to either side */
    int32_t bands; /* (2 reach + 1, C), in the weights: what each neighbour counts */
} channel_conv;

static void run_channel_conv(const channel_conv *s, float *arena, const float *weights)
{
    const float *const x = arena + s->x.at;
    float *const y = arena + s->y.at;
    for (int32_t c = 0; c < s->y.c; c++) {
        float sum = 0.0f;
        for (int32_t d = -s->reach; d <= s->reach; d++)
            if (c + d >= 0 && c + d < s->y.c)
                sum += weights[s->bands + (d + s->reach) * s->y.c + c] * x[c + d];
        y[c] = sum;
    }
}
