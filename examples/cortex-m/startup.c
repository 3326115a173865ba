/* The least that a Cortex-M needs before main: a vector table, the floating-point unit switched on,
 * data brought to RAM and the rest of it zeroed. Output and exit status go to the debugger
 * (semihosting). The stack lies under the end of the board's RAM.
 */
#include <stdint.h>

extern uint32_t stack_top, data_start, data_end, data_in_flash, __bss_start__, __bss_end__;
extern int main(void);

#define WRITE 0x04 /* what the debugger is asked for */
#define EXIT 0x18
#define EXITED_WELL 0x20026
#define EXITED_ILL 0x20023

static void ask(int what, uintptr_t with)
{
    register int r0 __asm__("r0") = what;
    register uintptr_t r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void say(const char *text) { ask(WRITE, (uintptr_t)text); }

static void reset(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88;
    *cpacr |= 0xFu << 20; /* full access to the floating-point unit */
    __asm__ volatile("dsb\n isb");
    const uint32_t *from = &data_in_flash;
    for (uint32_t *to = &data_start; to < &data_end; to++, from++)
        *to = *from;
    for (uint32_t *to = &__bss_start__; to < &__bss_end__; to++)
        *to = 0;
    ask(EXIT, main() == 0 ? EXITED_WELL : EXITED_ILL);
}

static void fault(void)
{
    say("fault\n");
    ask(EXIT, EXITED_ILL);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    (void *)fault,
};
