"""The C that loads blocks: tables of a program's slots, around a template."""

import math
from collections.abc import Mapping

from distillnet.engine.emit import Tables, fill_template
from distillnet.engine.literals import c_array
from distillnet.engine.missions.blocks import FORMAT
from distillnet.engine.missions.layout import Layout
from distillnet.engine.spans import ActiveStrip, strip_rows
from distillnet.engine.steps import BLOCK, Program
from distillnet.engine.taps import segment_rows

__all__ = ["loader_header", "loader_source"]

_HEADER = """\

/* Missions that come later, as blocks of bytes: see @NAME@_load_mission. */
enum {
    @UPPER@_ERROR_BLOCK = 16, /* a block that is damaged, cut off, or none */
    @UPPER@_ERROR_OLD = 17,   /* a block whose serial is not larger than that of what is held */
    @UPPER@_ERROR_ROOM = 18,  /* less memory than @UPPER@_ROOM_BYTES says */
};
#define @UPPER@_LOADABLE_STRIPS @N_STRIPS@u
/* Memory for the mission of a block of so many bytes. */
#define @UPPER@_ROOM_BYTES(bytes) \\
    (@N_SLOTS@u * sizeof(@NAME@_layer) + @UPPER@_LOADABLE_STRIPS * sizeof(@NAME@_strip) + \\
     @UPPER@_MOST_OUTPUTS * sizeof(char *) + (size_t)(bytes) + 64u)

/* Have a mission become the one of a block that `distillnet mission block` wrote. `mission` is a
 * mission of this folder, its weights set; `serial` the number of what it holds, 0 at first. The
 * mission lives in `room`, so another one that is held needs room of its own; of the block nothing
 * is used afterwards. Whatever is refused (damaged, cut off, made for other code or weights, not
 * newer) leaves mission and serial as they were. A CRC-32 tells damage, not who sent the block:
 * take blocks from those alone who checked the signature of the package behind it. */
int @NAME@_load_mission(@NAME@_mission *mission, uint64_t *serial, void *room, size_t room_bytes,
                        const void *block, size_t bytes);
"""


def loader_header(layout: Layout, common: Mapping[str, object]) -> str:
    """What ``model.h`` says of it."""
    strips = sum(len(slot.strips) for slot in layout.slots)
    text = _HEADER.replace("@NAME@", str(common["NAME"])).replace("@UPPER@", str(common["UPPER"]))
    return text.replace("@N_STRIPS@", str(max(strips, 1))).replace(
        "@N_SLOTS@", str(len(layout.slots))
    )


def loader_source(program: Program, layout: Layout, common: Mapping[str, object]) -> str:
    """``load_mission.c``."""
    parts, rows = [], []
    writer, name = Tables(program), str(common["NAME"])
    for i, slot in enumerate(program.slots.values()):
        step, (channels, height, width) = program.steps[slot.step], slot.shape
        if step.kernel == "mask":
            rows.append(f"{{NULL, 0, {height}, {width}, {-(-channels // BLOCK)}u, NULL, 0u, 0u}}")
            continue
        strips, _, _ = strip_rows([ActiveStrip(s) for s in step.strips], math.prod(slot.shape[1:]))
        parts.append(c_array(f"{name}_strip", f"strips_{i}", strips, 1))
        taps = "NULL, 0u, 0u"
        if layout.slots[i].layer is not None:
            whole = writer.segments(step)
            parts.append(c_array(f"{name}_segment", f"segments_{i}", segment_rows(whole), 4))
            taps = f"segments_{i}, {len(whole)}u, {sum(s.n for s in whole)}u"
        rows.append(f"{{strips_{i}, {len(strips)}, {height}, {width}, 0u, {taps}}}")
    parts.append(c_array("slot", "slots", rows, 1))
    values = dict(common) | {
        "TABLES": "".join(parts),
        "FORMAT": FORMAT,
        "N_SLOTS": len(layout.slots),
        "N_SCORES": layout.n_scores,
        "LAYOUT_ID": f"0x{layout.identity:08x}",
    }
    return fill_template("load_mission.c", values)
