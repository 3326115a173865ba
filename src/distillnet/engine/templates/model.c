/* @BANNER@
 *
 * First the kernels, the same for every network, then this network's tables and its sequence of
 * calls. Arena: @ARENA_BYTES@ bytes, @ARENA_SHARE@ times the largest sum of tensors alive at once.
 */
#include "model.h"

#define MAGIC 0x314e4c44u
#define ALIGNMENT sizeof(float) /* of images, scores and weights */

typedef @NAME@_span span;
typedef @NAME@_strip strip;
typedef @NAME@_segment segment;
typedef @NAME@_layer layer;

/* What a run is given: an image as numbers, or, where it is NULL, as bytes. */
typedef struct {
    const layer *layers;
    const @WEIGHT@ *weights;
    @ELEMENT@ *arena;
    const float *in;
    const uint8_t *pixels;
} given;

#define GIVEN(with)                                   \
    const layer *const layers = (with)->layers;       \
    const @WEIGHT@ *const weights = (with)->weights;  \
    @ELEMENT@ *const arena = (with)->arena;           \
    const float *const in = (with)->in;               \
    const uint8_t *const pixels = (with)->pixels;     \
    (void)layers, (void)weights, (void)arena, (void)in, (void)pixels;

@KERNELS@
@TABLES@
/* May be defined to look at each step, e.g. to time it. */
#ifndef STEP
#define STEP(index, call) call
#endif
#ifndef CHAIN /* ... and at those that run by turns, by the first of them */
#define CHAIN(index, call) call
#endif
@CHAINS@
static void run_all(const given *with)
{
    GIVEN(with)
@CALLS@}

/* CRC-32 of the bytes as weights.bin has them, four bits at once: a table of 64 bytes. */
static uint32_t crc_of(const @WEIGHT@ *weights)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    const uint16_t one = 1;
    const size_t swap = *(const uint8_t *)&one == 1 ? 0 : sizeof *weights - 1;
    const uint8_t *const bytes = (const uint8_t *)weights;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < @UPPER@_N_WEIGHTS * sizeof *weights; i++) {
        crc ^= bytes[i ^ swap];
        crc = table[crc & 15u] ^ crc >> 4;
        crc = table[crc & 15u] ^ crc >> 4;
    }
    return ~crc;
}

int @NAME@_check(const @NAME@_mission *mission)
{
    if (mission == NULL || mission->weights == NULL)
        return @UPPER@_ERROR_NULL;
    if (mission->magic != MAGIC || mission->weights_id != @UPPER@_WEIGHTS_ID)
        return @UPPER@_ERROR_MISSION;
    if ((uintptr_t)mission->weights % ALIGNMENT != 0)
        return @UPPER@_ERROR_ALIGNMENT;
    return crc_of(mission->weights) == @UPPER@_WEIGHTS_ID ? @UPPER@_OK : @UPPER@_ERROR_WEIGHTS;
}

int @NAME@_load(@NAME@_mission *mission, const void *weights, size_t bytes)
{
    if (mission == NULL || weights == NULL)
        return @UPPER@_ERROR_NULL;
    if (bytes != @UPPER@_N_WEIGHTS * sizeof(@WEIGHT@))
        return @UPPER@_ERROR_WEIGHTS;
    @NAME@_mission loaded = *mission;
    loaded.weights = weights;
    const int status = @NAME@_check(&loaded);
    if (status == @UPPER@_OK)
        *mission = loaded;
    return status;
}

size_t @NAME@_arena_bytes(void) { return @UPPER@_ARENA_BYTES; }

static int checked(const @NAME@_mission *mission, const void *arena, size_t arena_bytes,
                   const float *in, const float *out)
{
    if (arena_bytes < @UPPER@_ARENA_BYTES || (uintptr_t)arena % @UPPER@_ARENA_ALIGNMENT != 0)
        return @UPPER@_ERROR_ARENA;
    if (mission->magic != MAGIC || mission->weights_id != @UPPER@_WEIGHTS_ID ||
        mission->n_layers != @N_SLOTS@)
        return @UPPER@_ERROR_MISSION;
    if (mission->weights == NULL)
        return @UPPER@_ERROR_NULL;
    if (((uintptr_t)in | (uintptr_t)out | (uintptr_t)mission->weights) % ALIGNMENT != 0)
        return @UPPER@_ERROR_ALIGNMENT;
    return @UPPER@_OK;
}

static void give_scores(const @NAME@_mission *mission, void *arena, const float *in,
                        const uint8_t *pixels, float *out)
{
    @ELEMENT@ *const elements = arena;
    const given with = {mission->layers, mission->weights, elements, in, pixels};
    run_all(&with);
    const float *const scores = (const float *)(const void *)(elements + @SCORES@);
    for (int32_t i = 0; i < mission->n_outputs; i++)
        out[i] = scores[mission->outputs[i]];
}

int @NAME@_run_in(const @NAME@_mission *mission, void *arena, size_t arena_bytes, const float *in,
                  float *out)
{
    if (mission == NULL || arena == NULL || in == NULL || out == NULL)
        return @UPPER@_ERROR_NULL;
    const int status = checked(mission, arena, arena_bytes, in, out);
    if (status == @UPPER@_OK)
        give_scores(mission, arena, in, NULL, out);
    return status;
}

int @NAME@_run(const @NAME@_mission *mission, void *arena, const float *in, float *out)
{
    return @NAME@_run_in(mission, arena, @UPPER@_ARENA_BYTES, in, out);
}
@MORE_C@