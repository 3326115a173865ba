/* Loads a block, then many that were changed, and runs whatever is taken; for sanitizers.
 *
 *     load_blocks BLOCK N SEED     with the CRC-32 mended after each change, so that all of it is read
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static uint32_t crc_of(const unsigned char *bytes, size_t count)
{
    static uint32_t table[256]; /* bit by bit it would take longer than what is tested */
    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = i;
            for (int bit = 0; bit < 8; bit++)
                table[i] = table[i] >> 1 ^ (0xedb88320u & (uint32_t) - (int32_t)(table[i] & 1u));
        }
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255u];
    return ~crc;
}

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    static unsigned char original[1 << 20];
    FILE *file = fopen(argv[1], "rb");
    const size_t size = file == NULL ? 0 : fread(original, 1, sizeof original, file);
    const long times = strtol(argv[2], NULL, 10);
    state = (uint64_t)strtol(argv[3], NULL, 10);
    void *const arena = aligned_alloc(64, (NET_ARENA_BYTES + 63u) / 64u * 64u);
    float *const image = calloc(NET_CHANNELS * NET_HEIGHT * NET_WIDTH, sizeof *image);
    if (size < 48 || arena == NULL || image == NULL)
        return 2;
    float scores[NET_MOST_OUTPUTS];
    long taken = 0, tried = 0;
    for (long i = 0; i <= times; i++) {
        /* Memory of its exact length, so that a byte beyond is seen. */
        size_t bytes = size;
        const int cut = i > 0 && draw(8) == 0;
        if (cut)
            bytes = draw((uint32_t)size);
        unsigned char *const block = malloc(bytes + 1);
        const size_t room_bytes = NET_ROOM_BYTES(bytes);
        unsigned char *const room = malloc(room_bytes);
        if (block == NULL || room == NULL)
            return 2;
        memcpy(block, original, bytes);
        for (uint32_t n = i == 0 ? 0 : draw(4) + !cut; n > 0 && bytes > 0; n--) {
            const uint32_t at = 40 + draw((uint32_t)size), many = 1 + draw(4);
            for (uint32_t j = at; j < at + many && j < bytes; j++)
                block[j] = (unsigned char)(draw(3) == 0 ? 255 * draw(2) : draw(256));
        }
        if (bytes >= 16 && draw(16) != 0) {
            put32(block + 8, (uint32_t)bytes);
            put32(block + 12, crc_of(block + 16, bytes - 16));
        }
        net_mission mission = net_mission_first;
        uint64_t serial = 0;
        const int status = net_load_mission(&mission, &serial, room, room_bytes, block, bytes);
        free(block);
        tried++;
        if (status == NET_OK) {
            taken++;
            if (net_run(&mission, arena, image, scores) != NET_OK)
                return 3;
            size_t letters = strlen(mission.name);
            for (int32_t c = 0; c < mission.n_outputs; c++)
                letters += strlen(mission.classes[c]);
            if (letters > size)
                return 3;
        } else if (serial != 0 || memcmp(&mission, &net_mission_first, sizeof mission) != 0) {
            return 4;
        } else if (i == 0) {
            return 5;
        }
        free(room);
    }
    printf("%ld tried, %ld taken\n", tried, taken);
    free(arena);
    free(image);
    return 0;
}
