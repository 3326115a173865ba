/* @BANNER@
 *
 * The weights as a constant: the bytes of weights.bin in strings, which compilers read in no time.
 */
#include "model.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "weights.bin is little-endian; swap its bytes, and read it at run time"
#endif

extern const @NAME@_constant @NAME@_weights;
_Alignas(64) const @NAME@_constant @NAME@_weights = {
$BYTES$};
