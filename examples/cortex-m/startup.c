/* The least that a Cortex-M needs before main: a vector table, the floating-point unit switched on,
 * initialised data brought to RAM, then newlib's own start, which speaks to the debugger
 * (semihosting) for output and exit status.
 */
#include <stdint.h>

extern uint32_t stack_top, data_start, data_end, data_in_flash;
extern void _start(void);

static void reset(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xE000ED88;
    *cpacr |= 0xFu << 20; /* full access to the floating-point unit */
    const uint32_t *from = &data_in_flash;
    for (uint32_t *to = &data_start; to < &data_end; to++, from++)
        *to = *from;
    __asm__ volatile("dsb\n isb");
    _start();
}

static void fault(void)
{
    for (;;)
        __asm__ volatile("bkpt 0xAB");
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
    (void *)fault,
};
