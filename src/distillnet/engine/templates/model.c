/* @BANNER@
 *
 * First the kernels, the same for every network, then this network's tables and its sequence of
 * calls. Arena: @ARENA_BYTES@ bytes, @ARENA_SHARE@ times the largest sum of tensors alive at once.
 */
#include "model.h"

#define MAGIC 0x314e4c44u

typedef @NAME@_span span;
typedef @NAME@_strip strip;
typedef @NAME@_layer layer;

@KERNELS@
@TABLES@
/* May be defined to look at each step, e.g. to time it. */
#ifndef STEP
#define STEP(index, call) call
#endif

static void run_all(const layer *layers, const @WEIGHT@ *weights, @ELEMENT@ *arena,
                    const float *in)
{
    (void)layers;
    (void)weights;
@CALLS@}

size_t @NAME@_arena_bytes(void) { return @UPPER@_ARENA_BYTES; }

static int checked(const @NAME@_mission *mission, const void *arena, size_t arena_bytes)
{
    if (arena_bytes < @UPPER@_ARENA_BYTES || (uintptr_t)arena % @UPPER@_ARENA_ALIGNMENT != 0)
        return @UPPER@_ERROR_ARENA;
    if (mission->magic != MAGIC || mission->weights_id != @UPPER@_WEIGHTS_ID ||
        mission->n_layers != @N_SLOTS@)
        return @UPPER@_ERROR_MISSION;
    return mission->weights == NULL ? @UPPER@_ERROR_NULL : @UPPER@_OK;
}

static void run_mission(const @NAME@_mission *mission, void *arena, const float *in, float *out)
{
    @ELEMENT@ *const elements = arena;
    run_all(mission->layers, mission->weights, elements, in);
    const float *const scores = (const float *)(const void *)(elements + @SCORES@);
    for (int32_t i = 0; i < mission->n_outputs; i++)
        out[i] = scores[mission->outputs[i]];
}

int @NAME@_run_in(const @NAME@_mission *mission, void *arena, size_t arena_bytes, const float *in,
                  float *out)
{
    if (mission == NULL || arena == NULL || in == NULL || out == NULL)
        return @UPPER@_ERROR_NULL;
    const int status = checked(mission, arena, arena_bytes);
    if (status == @UPPER@_OK)
        run_mission(mission, arena, in, out);
    return status;
}

int @NAME@_run(const @NAME@_mission *mission, void *arena, const float *in, float *out)
{
    return @NAME@_run_in(mission, arena, @UPPER@_ARENA_BYTES, in, out);
}
@MORE_C@