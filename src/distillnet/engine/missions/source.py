"""The C source of a mission that is compiled in."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import Tables, fill_template
from distillnet.engine.literals import c_array, c_comment, c_float, c_text
from distillnet.engine.missions.refits import own_biases, own_weights
from distillnet.engine.spans import bit_words, strip_rows, strips_of_step
from distillnet.engine.steps import MissionBits, Program, Step
from distillnet.engine.taps import live_segments, segment_rows

__all__ = ["mission_source"]

_WHOLE_MASK = "{NULL, 0, NULL, NULL, NULL, NULL, NULL, 0, 0}"


def mission_source(program: Program, mission: MissionBits, common: Mapping[str, object]) -> str:
    """The C source of one mission."""
    writer = Tables(program)
    parts: list[str] = []
    layers = []
    for i, (name, slot) in enumerate(program.slots.items()):
        step, keep = program.steps[slot.step], mission.keep.get(name)
        if step.kernel != "mask":
            layers.append(_layer(writer, step, str(i), mission, parts))
        elif keep is None or bool(keep.all()):
            layers.append(_WHOLE_MASK)
        else:
            parts.append(c_array("uint16_t", f"bits_{i}", bit_words(keep).reshape(-1).tolist()))
            layers.append(_WHOLE_MASK.replace("NULL, NULL", f"NULL, bits_{i}", 1))
    parts.append(c_array("char *const", "classes", [c_text(name) for name in mission.classes], 1))
    parts.append(c_array("uint16_t", "outputs", mission.outputs))
    if layers:
        parts.append(c_array("@NAME@_layer", "layers", layers, 1))
    tables = "".join(parts).replace("@NAME@", str(common["NAME"]))
    values = dict(common) | {
        "MISSION": mission.name,
        "CLASSES_SHOWN": c_comment(", ".join(mission.classes)),
        "TABLES": tables,
        "N_OUTPUTS": len(mission.outputs),
        "N_SLOTS": len(program.slots),
        "LAYERS": "layers" if layers else "NULL",
    }
    return fill_template("mission.c", values)


def _layer(writer: Tables, step: Step, label: str, mission: MissionBits, parts: list[str]) -> str:
    """The row of a convolution; its tables are added to ``parts``."""
    slot = str(step.slot)
    active = strips_of_step(step, mission.keep.get(slot))
    live, refit = mission.live.get(slot), mission.refits.get(slot)
    own = None
    row = dict.fromkeys(("spans", "bits", "weights", "biases", "segments"), "NULL")
    n_segments = taps = 0

    def table(kind: str, name: str, values: Sequence[object], per_line: int) -> None:
        if values:
            parts.append(c_array(kind, f"{name}_{label}", values, per_line))
            row[name] = f"{name}_{label}"

    if refit is not None and refit.weight is not None:
        packed = own_weights(active, refit, live)
        own, taps = packed.begins, packed.taps
        table("float", "weights", _floats(packed.values), 8)
    elif refit is not None:
        table("float", "biases", _floats(own_biases(active, refit.bias)), 8)
    strips, spans, bits = strip_rows(active, math.prod(_places(writer.program, step)), own)
    parts.append(c_array("@NAME@_strip", f"strips_{label}", strips, 1))
    table("@NAME@_span", "spans", spans, 6)
    table("uint16_t", "bits", bits, 16)
    if live is not None:
        rows = segment_rows(live_segments(writer.segments(step), live, packed=own is not None))
        n_segments = len(rows)
        table("@NAME@_segment", "segments", rows, 4)
    return f"{{strips_{label}, {len(strips)}, {', '.join(row.values())}, {n_segments}, {taps}}}"


def _places(program: Program, step: Step) -> tuple[int, ...]:
    return program.places[step.writes].shape[1:]


def _floats(values: NDArray[np.float32]) -> list[str]:
    return [c_float(v) for v in values.tolist()]
