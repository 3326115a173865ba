/* @BANNER@
 *
 * Missions from blocks of bytes that `distillnet mission block` wrote. Nothing of a block is
 * believed: its length and CRC-32 first, then that it was made for this code, then every number.
 */
#include "model.h"

#include <string.h>

#define N_SLOTS @N_SLOTS@
#define N_SCORES @N_SCORES@u
#define HEADER 16u
#define GROUP 16 /* channels of a word, and of a block of weights */

enum { SPANS = 1, SEGMENTS = 2, WEIGHTS = 4, BIASES = 8 }; /* what a block has of a slot */

typedef struct {
    const @NAME@_strip *strips; /* all of each is computed */
    int32_t n_strips;
    uint16_t h, w;
    uint32_t words; /* of a place, of a mask; 0: a convolution */
    const @NAME@_segment *segments; /* all taps; NULL: weights are the same for all missions */
    uint32_t n_segments, taps;
} slot;

@TABLES@
/* What is left of a block; `whole` becomes 0 where more was asked for. */
typedef struct {
    const unsigned char *at;
    size_t left;
    int whole;
} reader;

typedef struct {
    unsigned char *at;
    size_t left;
} heap;

static uint32_t get(reader *r, size_t bytes)
{
    uint32_t value = 0;
    if (r->left < bytes) {
        r->whole = 0;
        r->left = 0;
        return 0;
    }
    for (size_t i = bytes; i-- > 0;)
        value = value << 8 | r->at[i];
    r->at += bytes;
    r->left -= bytes;
    return value;
}

/* Room for `count` things, as far as there is any. */
static void *give(heap *h, size_t count, size_t size, size_t alignment)
{
    const size_t skip = (size_t)(-(uintptr_t)h->at % alignment);
    if (h->left < skip || (h->left - skip) / size < count)
        return NULL;
    unsigned char *const start = h->at + skip;
    h->at = start + count * size;
    h->left -= skip + count * size;
    return start;
}

static uint32_t crc_of(const unsigned char *bytes, size_t count)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = table[crc & 15u] ^ crc >> 4;
        crc = table[crc & 15u] ^ crc >> 4;
    }
    return ~crc;
}

/* `count` words; NULL where the block or the room has fewer. */
static uint16_t *get_words(reader *r, heap *h, size_t count)
{
    if (r->left / 2 < count)
        return NULL;
    uint16_t *const words = give(h, count, sizeof *words, _Alignof(uint16_t));
    if (words == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        words[i] = (uint16_t)get(r, 2);
    return words;
}

/* `count` floats; NULL where the block or the room has fewer. */
static const float *get_floats(reader *r, heap *h, size_t count)
{
    if (r->left / 4 < count)
        return NULL;
    float *const values = give(h, count, sizeof *values, _Alignof(float));
    if (values == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = get(r, 4);
        memcpy(values + i, &bits, sizeof bits);
    }
    return values;
}

/* The taps that count: each run within one of the layer's own, in their order, apart. */
static int get_segments(reader *r, heap *h, const slot *s, @NAME@_layer *l, int packed)
{
    const uint32_t count = get(r, 4);
    if (!r->whole || count == 0 || count > r->left / 12)
        return 0;
    @NAME@_segment *const segments = give(h, count, sizeof *segments, _Alignof(@NAME@_segment));
    if (segments == NULL)
        return 0;
    uint32_t own = 0, from = 0, taps = 0; /* `from`: taps before it were read */
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t tap = get(r, 4), n = get(r, 4), w = get(r, 4);
        if (!r->whole || tap < from || tap > s->taps || n > s->taps - tap ||
            w != (packed ? taps : tap))
            return 0;
        from = tap + n;
        taps += n;
        while (own < s->n_segments &&
               tap >= (uint32_t)s->segments[own].w + (uint32_t)s->segments[own].n)
            own++;
        if (n == 0) { /* no input counts */
            if (count != 1)
                return 0;
            segments[i] = (@NAME@_segment){0, 0, 0};
            continue;
        }
        const @NAME@_segment *const whole = s->segments + own;
        if (own == s->n_segments || n > (uint32_t)whole->n - (tap - (uint32_t)whole->w))
            return 0;
        segments[i].x = whole->x + (int32_t)(tap - (uint32_t)whole->w);
        segments[i].w = (int32_t)w;
        segments[i].n = (int32_t)n;
    }
    l->segments = segments;
    l->n_segments = (int32_t)count;
    l->taps = (int32_t)taps;
    return 1;
}

/* Weights of the mission's own, of the strips that compute anything, one behind the other. */
static int get_weights(reader *r, heap *h, const slot *s, @NAME@_strip *strips, @NAME@_layer *l)
{
    const size_t block = ((size_t)l->taps + 1u) * GROUP;
    size_t floats = 0;
    for (int32_t i = 0; i < s->n_strips; i++) {
        strips[i].weights = (int32_t)floats;
        if (strips[i].places == 0)
            continue;
        const size_t groups = (size_t)(strips[i].channels + GROUP - 1) / GROUP;
        if (groups > (r->left / 4 - floats) / block)
            return 0;
        floats += groups * block;
    }
    if (floats > INT32_MAX)
        return 0;
    l->weights = get_floats(r, h, floats);
    return l->weights != NULL;
}

static int get_biases(reader *r, heap *h, const slot *s, @NAME@_layer *l)
{
    size_t floats = 0;
    for (int32_t i = 0; i < s->n_strips; i++)
        floats += (size_t)(s->strips[i].channels + GROUP - 1) / GROUP * GROUP;
    l->biases = get_floats(r, h, floats);
    return l->biases != NULL;
}

/* The spans of a strip: within the map, in their order, apart. How many places, or -1. */
static int32_t get_spans(reader *r, const slot *s, @NAME@_span *spans, size_t count)
{
    int32_t places = 0;
    for (size_t i = 0; i < count; i++) {
        @NAME@_span *const p = spans + i;
        p->y = (uint16_t)get(r, 2);
        p->x0 = (uint16_t)get(r, 2);
        p->x1 = (uint16_t)get(r, 2);
        if (!r->whole || p->y >= s->h || p->x0 >= p->x1 || p->x1 > s->w)
            return -1;
        if (i > 0 && (p->y < p[-1].y || (p->y == p[-1].y && p->x0 < p[-1].x1)))
            return -1;
        places += p->x1 - p->x0;
    }
    return places;
}

static int get_strips(reader *r, heap *h, const slot *s, @NAME@_strip *strips, @NAME@_layer *l)
{
    const uint32_t n_spans = get(r, 4), n_words = get(r, 4);
    if (!r->whole || n_spans > r->left / 6 || n_words > r->left / 2)
        return 0;
    @NAME@_span *const spans = give(h, n_spans, sizeof *spans, _Alignof(@NAME@_span));
    uint16_t *const words = give(h, n_words, sizeof *words, _Alignof(uint16_t));
    if (spans == NULL || words == NULL)
        return 0;
    uint32_t span = 0, word = 0;
    for (int32_t i = 0; i < s->n_strips; i++) {
        const uint32_t parts = get(r, 2);
        if (!r->whole || parts > 1)
            return 0;
        if (parts == 0)
            continue;
        const uint32_t count = get(r, 4), has_words = get(r, 2);
        if (!r->whole || count > n_spans - span || has_words > 1)
            return 0;
        const int32_t places = get_spans(r, s, spans + span, count);
        if (places < 0)
            return 0;
        strips[i].places = places;
        strips[i].spans = (int32_t)span;
        strips[i].n_spans = (int32_t)count;
        span += count;
        if (has_words) {
            const uint32_t groups = (uint32_t)(strips[i].channels + GROUP - 1) / GROUP;
            if ((uint32_t)places > (n_words - word) / groups)
                return 0;
            strips[i].bits = (int32_t)word;
            for (uint32_t j = (uint32_t)places * groups; j > 0; j--)
                words[word++] = (uint16_t)get(r, 2);
        }
    }
    l->spans = spans;
    l->bits = words;
    return r->whole && span == n_spans && word == n_words;
}

static int get_layer(reader *r, heap *h, const slot *s, @NAME@_strip *strips, @NAME@_layer *l)
{
    const uint32_t parts = get(r, 2);
    *l = (@NAME@_layer){.strips = s->strips, .n_strips = s->n_strips, .taps = (int32_t)s->taps};
    if (!r->whole || parts > (SPANS | SEGMENTS | WEIGHTS | BIASES))
        return 0;
    if (s->words != 0) {
        if (parts == SPANS)
            l->bits = get_words(r, h, (size_t)s->h * s->w * s->words);
        return parts == 0 || l->bits != NULL;
    }
    if (s->segments == NULL && parts > SPANS)
        return 0;
    if (parts & (SPANS | WEIGHTS)) {
        memcpy(strips, s->strips, (size_t)s->n_strips * sizeof *strips);
        l->strips = strips;
    }
    if ((parts & SPANS) && !get_strips(r, h, s, strips, l))
        return 0;
    if ((parts & SEGMENTS) && !get_segments(r, h, s, l, (parts & WEIGHTS) != 0))
        return 0;
    if (parts & WEIGHTS)
        return !(parts & BIASES) && get_weights(r, h, s, strips, l);
    return !(parts & BIASES) || get_biases(r, h, s, l);
}

/* Name and classes: so many strings, each with a zero behind it, and nothing else. */
static int get_text(reader *r, heap *h, @NAME@_mission *m, const char **classes, uint32_t bytes)
{
    char *text = r->left == bytes ? give(h, bytes, 1, 1) : NULL;
    if (text == NULL)
        return 0;
    memcpy(text, r->at, bytes);
    for (int32_t i = -1; i < m->n_outputs; i++) {
        const char *const end = memchr(text, 0, bytes);
        if (end == NULL)
            return 0;
        if (i < 0)
            m->name = text;
        else
            classes[i] = text;
        bytes -= (uint32_t)(end - text) + 1;
        text += end - text + 1;
    }
    return bytes == 0;
}

int @NAME@_load_mission(@NAME@_mission *mission, uint64_t *serial, void *room, size_t room_bytes,
                        const void *block, size_t bytes)
{
    if (mission == NULL || serial == NULL || room == NULL || block == NULL)
        return @UPPER@_ERROR_NULL;
    reader r = {block, bytes, 1};
    if (bytes < HEADER || memcmp(block, "DNMB", 4) != 0)
        return @UPPER@_ERROR_BLOCK;
    get(&r, 4);
    const uint32_t format = get(&r, 4), length = get(&r, 4), sum = get(&r, 4);
    if (format != @FORMAT@u || length != bytes || sum != crc_of(r.at, r.left))
        return @UPPER@_ERROR_BLOCK;
    const uint32_t layout = get(&r, 4), weights = get(&r, 4);
    if (!r.whole || layout != @LAYOUT_ID@u || weights != @UPPER@_WEIGHTS_ID ||
        mission->weights_id != weights)
        return @UPPER@_ERROR_MISSION;
    const uint32_t low = get(&r, 4), high = get(&r, 4);
    const uint64_t number = (uint64_t)high << 32 | low;
    if (r.whole && number <= *serial)
        return @UPPER@_ERROR_OLD;
    const uint32_t slots_there = get(&r, 4), n_outputs = get(&r, 4), text = get(&r, 4);
    if (!r.whole || slots_there != N_SLOTS || n_outputs == 0 ||
        n_outputs > @UPPER@_MOST_OUTPUTS)
        return @UPPER@_ERROR_BLOCK;
    if (room_bytes < @UPPER@_ROOM_BYTES(bytes))
        return @UPPER@_ERROR_ROOM;
    heap h = {room, room_bytes};
    @NAME@_layer *const layers = give(&h, N_SLOTS, sizeof *layers, _Alignof(@NAME@_layer));
    const char **const classes = give(&h, n_outputs, sizeof *classes, _Alignof(char *));
    @NAME@_strip *strips =
        give(&h, @UPPER@_LOADABLE_STRIPS, sizeof *strips, _Alignof(@NAME@_strip));
    uint16_t *const outputs = get_words(&r, &h, n_outputs);
    if (layers == NULL || classes == NULL || strips == NULL || outputs == NULL)
        return @UPPER@_ERROR_BLOCK;
    for (uint32_t i = 0; i < n_outputs; i++)
        if (outputs[i] >= N_SCORES)
            return @UPPER@_ERROR_BLOCK;
    for (int32_t i = 0; i < N_SLOTS; i++) {
        if (!get_layer(&r, &h, slots + i, strips, layers + i))
            return @UPPER@_ERROR_BLOCK;
        strips += slots[i].n_strips;
    }
    @NAME@_mission loaded = *mission;
    loaded.outputs = outputs;
    loaded.n_outputs = (int32_t)n_outputs;
    loaded.n_layers = N_SLOTS;
    loaded.layers = layers;
    loaded.classes = classes;
    if (!get_text(&r, &h, &loaded, classes, text))
        return @UPPER@_ERROR_BLOCK;
    *mission = loaded;
    *serial = number;
    return @UPPER@_OK;
}
