/* @BANNER@
 *
 * The weights as a constant, put in by the assembler (GCC and clang, ELF): as a C array, so many
 * numbers would take minutes to compile. Compile in this folder, or name the file.
 */
#ifndef @UPPER@_WEIGHTS_BIN
#define @UPPER@_WEIGHTS_BIN "weights.bin"
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "weights.bin is little-endian; swap its bytes, and read it at run time"
#endif

__asm__(".section .rodata\n"
        ".balign 64\n"
        ".global @NAME@_weights\n"
        "@NAME@_weights:\n"
        ".incbin \"" @UPPER@_WEIGHTS_BIN "\"\n"
        ".text\n");

typedef int @NAME@_weights_are_above; /* a translation unit must not be empty */
