/* @BANNER@
 *
 * Runs every mission on one image of noise and compares with what PyTorch said when this was
 * exported. Exit status 0: all scores agree within TOLERANCE of their range.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define TOLERANCE @TOLERANCE@
#define N_INPUTS (@UPPER@_CHANNELS * @UPPER@_HEIGHT * @UPPER@_WIDTH)

@TABLES@
static const struct {
    const @NAME@_mission *mission;
    const float *expected;
} missions[] = {
@ROWS@};

#ifdef @UPPER@_WEIGHTS_FROM_FILE
static @WEIGHT@ weights[@UPPER@_N_WEIGHTS];
#endif
static _Alignas(@UPPER@_ARENA_ALIGNMENT) float arena[@UPPER@_ARENA_BYTES / sizeof(float)];
static float image[N_INPUTS];
static float scores[@UPPER@_MOST_OUTPUTS];

/* The same numbers everywhere: a linear congruential generator, its upper 24 bits from -1 to 1. */
static void make_image(void)
{
    uint32_t state = 1;
    for (size_t i = 0; i < N_INPUTS; i++) {
        state = state * 1664525u + 1013904223u;
        image[i] = ((float)(state >> 8) / 8388608.0f - 1.0f) * @SCALE@;
    }
}

/* The largest difference from what is expected, as a share of the range of the scores, or of a tenth
 * of the largest where they are nearly equal: their own rounding would be a large share of that. */
static float difference(const float *expected, int32_t n)
{
    float least = INFINITY, most = -INFINITY, size = 1e-30f, largest = 0.0f;
    for (int32_t i = 0; i < n; i++) {
        least = fminf(least, expected[i]);
        most = fmaxf(most, expected[i]);
        size = fmaxf(size, fabsf(expected[i]));
        largest = fmaxf(largest, fabsf(scores[i] - expected[i]));
        if (isnan(scores[i]))
            return INFINITY;
    }
    return largest / fmaxf(most - least, 0.1f * size);
}

int main(int argc, char **argv)
{
    int failed = 0;
#ifdef @UPPER@_PACKED_BYTES
    static _Alignas(8) char work[@UPPER@_UNPACK_BYTES];
    (void)argc;
    (void)argv;
    if (@NAME@_unpack(weights, work, sizeof work) != @UPPER@_OK) {
        fprintf(stderr, "the packed weights are damaged\n");
        return 2;
    }
#elif defined @UPPER@_WEIGHTS_FROM_FILE
    FILE *file = fopen(argc > 1 ? argv[1] : "weights.bin", "rb");
    if (file == NULL || fread(weights, sizeof *weights, @UPPER@_N_WEIGHTS, file) !=
                            @UPPER@_N_WEIGHTS) {
        fprintf(stderr, "cannot read %u numbers of weights.bin; name the file\n", @UPPER@_N_WEIGHTS);
        return 2;
    }
    fclose(file);
#else
    (void)argc;
    (void)argv;
#endif
    make_image();
    printf("arena: %lu bytes\n", (unsigned long)@NAME@_arena_bytes());
    for (size_t i = 0; i < sizeof missions / sizeof *missions; i++) {
        @NAME@_mission mission = *missions[i].mission;
#ifdef @UPPER@_WEIGHTS_FROM_FILE
        if (@NAME@_load(&mission, weights, sizeof weights) != @UPPER@_OK) {
            fprintf(stderr, "weights.bin is damaged, or of another network\n");
            return 2;
        }
#endif
        memset(arena, 0xff, sizeof arena); /* NaN: nothing may depend on it */
        const int status = @NAME@_run_in(&mission, arena, sizeof arena, image, scores);
        const float found = status == @UPPER@_OK
                                ? difference(missions[i].expected, mission.n_outputs)
                                : INFINITY;
        const int passed = found <= TOLERANCE;
        printf("%s %s: difference %.1e of the scores' range\n", passed ? "PASS" : "FAIL",
               mission.name, (double)found);
        failed += !passed;
    }
    return failed != 0;
}
