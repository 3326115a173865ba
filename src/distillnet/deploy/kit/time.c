/* Prints the median seconds of a network: time RUNS SECONDS, at least both. Weights are zeros, since
 * the time does not depend on them. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model.h"

#define MOST_RUNS 100000

static _Alignas(MODEL_ARENA_ALIGNMENT) float arena[MODEL_ARENA_BYTES / sizeof(float)];
static float weights[MODEL_N_WEIGHTS];
static float image[MODEL_CHANNELS * MODEL_HEIGHT * MODEL_WIDTH];
static float scores[MODEL_MOST_OUTPUTS];
static double times[MOST_RUNS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const int least = argc > 1 ? atoi(argv[1]) : 7;
    const double seconds = argc > 2 ? atof(argv[2]) : 1.0;
    model_mission mission = model_mission_chain;
    int n = -2; /* two to warm up */
    mission.weights = weights;
    double end = 0.0;
    while (n < MOST_RUNS && (n < least || now() < end)) {
        const double start = now();
        if (n == 0)
            end = start + seconds;
        if (model_run_in(&mission, arena, sizeof arena, image, scores) != MODEL_OK)
            return 1;
        if (n >= 0)
            times[n] = now() - start;
        n++;
    }
    qsort(times, (size_t)n, sizeof *times, ascending);
    printf("%.9f\n", times[n / 2]);
    return 0;
}
