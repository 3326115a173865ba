/* @BANNER@
 *
 * One image at a time: normalised float32 (C, H, W) in, scores out, in the mission's order. Nothing
 * is allocated and no global changes, so any number of threads may call, each with its own arena.
 */
#ifndef @UPPER@_H
#define @UPPER@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @UPPER@_VERSION "@VERSION@" /* what wrote this */
#define @UPPER@_CHANNELS @CHANNELS@
#define @UPPER@_HEIGHT @HEIGHT@
#define @UPPER@_WIDTH @WIDTH@
#define @UPPER@_MOST_OUTPUTS @OUTPUTS@ /* of any mission */
#define @UPPER@_ARENA_BYTES @ARENA_BYTES@u
#define @UPPER@_ARENA_ALIGNMENT 64
#define @UPPER@_N_WEIGHTS @N_WEIGHTS@u /* @WEIGHT@ in weights.bin */
#define @UPPER@_WEIGHTS_ID 0x@WEIGHTS_ID@u /* their CRC-32 */
@PACKED_H@
enum {
    @UPPER@_OK = 0,
    @UPPER@_ERROR_NULL = 1,    /* a pointer is null, the mission's weights included */
    @UPPER@_ERROR_ARENA = 2,   /* the arena is too small or not aligned */
    @UPPER@_ERROR_MISSION = 3, /* the mission was not made for this model and these weights */
    @UPPER@_ERROR_ALIGNMENT = 4, /* an address is no multiple of what is read or written there */
    @UPPER@_ERROR_WEIGHTS = 5, /* weights of another model, or damaged ones */
    @UPPER@_ERROR_PICTURE = 6, /* a picture's size, its rows' length, or too little memory for it */
};

/* What a mission needs of a layer's output: places x0 to x1 of row y ... */
typedef struct {
    @SIDE@ y, x0, x1;
} @NAME@_span;

/* ... of some channels. */
typedef struct {
    int32_t weights, in, out, channels;
    int32_t places;         /* how many are computed */
    int32_t spans, n_spans; /* where they begin; negative: all of the map */
    int32_t bits;           /* where its words begin; negative: all channels at these places */
} @NAME@_strip;

/* Taps of a filter that lie side by side: n numbers, the first of them x numbers from the first tap
 * of an output, and the w-th of the filter. */
typedef struct {
    int32_t x, w, n;
} @NAME@_segment;

/* A layer under a mission. What is NULL is the same for all missions. */
typedef struct {
    const @NAME@_strip *strips;
    int32_t n_strips;
    const @NAME@_span *spans;
    const uint16_t *bits;
    const @WEIGHT@ *weights; /* of the mission's own, strip by strip */
    const @BIAS@ *biases; /* of the mission's own, for all blocks of all strips */
    const @NAME@_segment *segments; /* the taps whose inputs are not always zero */
    int32_t n_segments;
    int32_t taps; /* that own weights have */
} @NAME@_layer;

typedef struct {
    uint32_t magic, weights_id;
    const @WEIGHT@ *weights; /* N_WEIGHTS of them; missions/ point to those of weights.c, or to none */
    const char *name;
    const char *const *classes; /* names of the outputs */
    const uint16_t *outputs;    /* which of the network's scores they are */
    int32_t n_outputs;
    int32_t n_layers;
    const @NAME@_layer *layers;
} @NAME@_mission;

@MISSIONS@

@CLASSES@
#ifndef @UPPER@_WEIGHTS_FROM_FILE
/* The weights of weights.c, as they lie in weights.bin. */
typedef union {
    unsigned char bytes[@WEIGHT_BYTES@ + 1]; /* a string ends with zero */
    @WEIGHT@ values[@UPPER@_N_WEIGHTS];
} @NAME@_constant;
#endif

/* Have a mission use weights that were read, or are mapped, from weights.bin: so many bytes at a
 * multiple of 4. They are compared with their CRC-32, which takes longer than a network of the same
 * size: do it once. Whoever wrote them is not checked. */
int @NAME@_load(@NAME@_mission *mission, const void *weights, size_t bytes);

/* Compare a mission's weights, wherever they are, with their CRC-32. */
int @NAME@_check(const @NAME@_mission *mission);

/* Bytes that an arena needs, its address a multiple of 64. What is in it does not matter. */
size_t @NAME@_arena_bytes(void);

/* Scores of one image: in (C, H, W), out (n_outputs). The arena has @NAME@_arena_bytes(). */
int @NAME@_run(const @NAME@_mission *mission, void *arena, const float *in, float *out);

/* The same for an arena of a given size, which is checked. */
int @NAME@_run_in(const @NAME@_mission *mission, void *arena, size_t arena_bytes, const float *in,
                  float *out);
@MORE_H@
@PREPROCESS@#ifdef __cplusplus
}
#endif
#endif
