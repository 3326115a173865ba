/* @BANNER@
 *
 * Mission @MISSION@: @CLASSES_SHOWN@.
 */
#include "../model.h"

/* Weights that come from weights.bin are set by the caller, in a copy of the mission. */
#ifdef @UPPER@_WEIGHTS_FROM_FILE
#define WEIGHTS NULL
#else
extern const @WEIGHT@ @NAME@_weights[@UPPER@_N_WEIGHTS];
#define WEIGHTS @NAME@_weights
#endif

@TABLES@
const @NAME@_mission @NAME@_mission_@MISSION@ = {
    .magic = 0x314e4c44u,
    .weights_id = @UPPER@_WEIGHTS_ID,
    .weights = WEIGHTS,
    .name = "@MISSION@",
    .classes = classes,
    .outputs = outputs,
    .n_outputs = @N_OUTPUTS@,
    .n_layers = @N_SLOTS@,
    .layers = @LAYERS@,
};
