"""The C source of a mission that is compiled in."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import Tables, fill_template
from distillnet.engine.literals import byte_text, c_array, c_comment, c_float, c_text
from distillnet.engine.missions.refits import own_biases, own_weights
from distillnet.engine.spans import (
    ActiveStrip,
    bit_words,
    plain_words,
    strip_rows,
    strips_of_step,
)
from distillnet.engine.steps import MissionBits, Program, Step
from distillnet.engine.taps import live_segments, segment_rows

__all__ = ["Numbers", "Own", "OwnTable", "mission_source"]

Keep = NDArray[np.bool_]

_WHOLE_MASK = "{NULL, 0, NULL, NULL, NULL, NULL, NULL, 0, 0}"


@dataclass(frozen=True)
class OwnTable:
    """Numbers in C, of type ``kind``: as texts, or bytes as they lie in memory."""

    kind: str
    values: Sequence[object] | bytes
    per_line: int = 8


@dataclass(frozen=True)
class Own:
    """What a mission has in a layer that others do not share.

    Attributes:
        begins: where the weights of each strip begin; None where they are the shared ones.
        taps: of a filter of its own weights.
        segments: as C has them; None where all taps count.
        words_of: a strip's bits as C has them.
    """

    weights: OwnTable | None = None
    biases: OwnTable | None = None
    begins: Sequence[int] | None = None
    taps: int = 0
    segments: Sequence[str] | None = None
    words_of: Callable[[ActiveStrip], list[int]] = plain_words


class Numbers(Protocol):
    """What tables of missions have to know of a program's numbers."""

    def strips(self, writer: Tables, step: Step, keep: Keep | None) -> Sequence[ActiveStrip]:
        """What is computed of a layer under a keep map (C, H, W)."""

    def own(
        self, writer: Tables, step: Step, active: Sequence[ActiveStrip], mission: MissionBits
    ) -> Own:
        """What a mission does not share in a layer."""


class _InFloats:
    """Those of a network in float32."""

    def strips(self, writer: Tables, step: Step, keep: Keep | None) -> Sequence[ActiveStrip]:
        return strips_of_step(step, keep)

    def own(
        self, writer: Tables, step: Step, active: Sequence[ActiveStrip], mission: MissionBits
    ) -> Own:
        slot = str(step.slot)
        live, refit = mission.live.get(slot), mission.refits.get(slot)
        refitted = refit is not None and refit.weight is not None
        segments = None
        if live is not None:
            segments = segment_rows(live_segments(writer.segments(step), live, packed=refitted))
        if refit is None:
            return Own(segments=segments)
        if not refitted:
            biases = OwnTable("float", _floats(own_biases(active, refit.bias)))
            return Own(biases=biases, segments=segments)
        packed = own_weights(active, refit, live)
        weights = OwnTable("float", _floats(packed.values))
        return Own(weights, None, packed.begins, packed.taps, segments)


def mission_source(
    program: Program,
    mission: MissionBits,
    common: Mapping[str, object],
    numbers: Numbers | None = None,
) -> str:
    """The C source of one mission, by default of a network in float32."""
    numbers = numbers or _InFloats()
    writer = Tables(program)
    parts: list[str] = []
    layers = []
    for i, (name, slot) in enumerate(program.slots.items()):
        step, keep = program.steps[slot.step], mission.keep.get(name)
        if step.kernel != "mask":
            layers.append(_layer(writer, step, str(i), mission, numbers, parts))
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


def _layer(
    writer: Tables, step: Step, label: str, mission: MissionBits, numbers: Numbers, parts: list[str]
) -> str:
    """The row of a convolution; its tables are added to ``parts``."""
    active = numbers.strips(writer, step, mission.keep.get(str(step.slot)))
    row = dict.fromkeys(("spans", "bits", "weights", "biases", "segments"), "NULL")

    def table(kind: str, name: str, values: Sequence[object] | bytes, per_line: int) -> None:
        if not values:
            return
        row[name] = f"{name}_{label}"
        if isinstance(values, bytes):
            text = byte_text(values)
            parts.append(f"static const {kind} {row[name]}[{len(values)} + 1] =\n{text};\n")
        else:
            parts.append(c_array(kind, row[name], values, per_line))

    own = numbers.own(writer, step, active, mission)
    for name, of_its_own in (("weights", own.weights), ("biases", own.biases)):
        if of_its_own is not None:
            table(of_its_own.kind, name, of_its_own.values, of_its_own.per_line)
    size = math.prod(_places(writer.program, step))
    strips, spans, bits = strip_rows(active, size, own.begins, own.words_of)
    parts.append(c_array("@NAME@_strip", f"strips_{label}", strips, 1))
    table("@NAME@_span", "spans", spans, 6)
    table("uint16_t", "bits", bits, 16)
    n_segments = 0
    if own.segments is not None:
        n_segments = len(own.segments)
        table("@NAME@_segment", "segments", own.segments, 4)
    tables = ", ".join(row.values())
    return f"{{strips_{label}, {len(strips)}, {tables}, {n_segments}, {own.taps}}}"


def _places(program: Program, step: Step) -> tuple[int, ...]:
    return program.places[step.writes].shape[1:]


def _floats(values: NDArray[np.float32]) -> list[str]:
    return [c_float(v) for v in values.tolist()]
