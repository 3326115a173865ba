/* Classifies the picture that the board holds, and tells what it cost.
 *
 * Instructions: QEMU with -icount shift=0 lets a nanosecond pass with each, and the board's timer
 * counts every 40th. Stack: from its top to the deepest word that is not as it was painted.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "picture.h" /* static const uint8_t picture[], and EXPECTED, the name of its class */

#define TIMER ((volatile uint32_t *)0x40000000) /* CMSDK timer 0: control, value, reload */
#define NS_PER_TICK 40u
#define PAINT 0xa5a5a5a5u
#define SPARE 64 /* words of the painter's own frame */

extern uint32_t end, stack_top; /* of the linker's script */
extern char flash_start[], flash_end[], ram_start[], ram_end[];

static _Alignas(MODEL_ARENA_ALIGNMENT) uint8_t arena[MODEL_ARENA_BYTES];
static float scores[MODEL_MOST_OUTPUTS];
static char line[160];

#define TELL(...)                                  \
    do {                                           \
        snprintf(line, sizeof line, __VA_ARGS__);  \
        say(line);                                 \
    } while (0)

extern void say(const char *text);

static uint32_t *painted_to(void)
{
    uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    return here - SPARE;
}

static void paint(const uint32_t *to)
{
    for (volatile uint32_t *p = &end; p < to; p++)
        *p = PAINT;
}

static uint32_t untouched(void)
{
    const volatile uint32_t *p = &end;
    while (*p == PAINT)
        p++;
    return (uint32_t)(uintptr_t)p;
}

int main(void)
{
    const model_mission *const mission = &MISSION;
    TIMER[2] = 0xffffffffu;
    TIMER[1] = 0xffffffffu;
    TIMER[0] = 1;
    uint32_t *const top = painted_to();
    paint(top);
    const uint32_t before = TIMER[1];
    const int status = model_run_pixels(mission, arena, sizeof arena, picture, scores);
    const uint32_t ticks = before - TIMER[1];
    const uint32_t stack = (uint32_t)(uintptr_t)&stack_top - untouched();
    if (status != MODEL_OK) {
        TELL("status %d\n", status);
        return 1;
    }
    int best = 0;
    for (int i = 0; i < mission->n_outputs; i++) {
        TELL("%s: %d thousandths\n", mission->classes[i], (int)(1000 * scores[i]));
        best = scores[i] > scores[best] ? i : best;
    }
    TELL("picture: %s, found: %s\n", EXPECTED, mission->classes[best]);
    TELL("flash: %lu bytes\n", (unsigned long)(flash_end - flash_start));
    TELL("ram: %lu bytes, the arena's %lu among them\n", (unsigned long)(ram_end - ram_start),
           (unsigned long)sizeof arena);
    TELL("stack: %lu bytes\n", (unsigned long)stack);
    TELL("instructions: %lu thousand\n", (unsigned long)(ticks / (1000u / NS_PER_TICK)));
    return strcmp(EXPECTED, mission->classes[best]) != 0;
}
