"""From a graph and the ranges of its values to steps in whole numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.engine.int8.calibration import Ranges
from distillnet.engine.int8.fixed import HIGHEST, Scale, byte_of, shifted
from distillnet.engine.int8.kept import Kept
from distillnet.engine.int8.layers import Filters, KeptLayer, kept_layer, whole_layer
from distillnet.engine.int8.scales import border_readers, scales_of
from distillnet.engine.lower import Lowered, View, lower
from distillnet.engine.placing import place_steps
from distillnet.engine.steps import MissionBits, Program, Slot, Step
from distillnet.errors import UnsupportedError
from distillnet.graph import Graph, Node, consumers
from distillnet.graph.operators import APPLY

__all__ = ["Quantised", "input_bytes", "quantise"]

_REFUSED = ("layer_norm", "group_norm", "channel_conv", "channel_max")
_LRN_BITS = 10  # of a table's places
_SCORE_BYTES = 4
_SCORES = "scores:float"


@dataclass(frozen=True)
class Quantised:
    """A network in whole numbers.

    Attributes:
        program: its settings are whole numbers; lengths and offsets are bytes.
        scales: by value.
        filters: by step's name.
        own: by mission and step's name, filters in place of those, or these with other biases.
        tables: by step's name: bytes for bytes, or factors; see ``reference``.
        block: output channels in a block of weights.
    """

    program: Program
    scales: Mapping[str, Scale]
    filters: Mapping[str, Filters]
    own: Mapping[str, Mapping[str, Filters]]
    tables: Mapping[str, NDArray[np.integer]]
    block: int

    def filters_of(self, step: Step, mission: MissionBits) -> Filters:
        """What a layer is computed with under a mission."""
        return self.own.get(mission.name, {}).get(step.name, self.filters[step.name])


def quantise(
    graph: Graph,
    missions: Sequence[MissionBits],
    ranges: Ranges,
    block: int = 16,
    *,
    by_rows: bool | None = None,
) -> tuple[Quantised, tuple[MissionBits, ...]]:
    """Write a prepared network (``missions.Prepared``) in whole numbers.

    Args:
        ranges: of every node under any mission, see ``find_ranges``.
        block: 16, for vectors, or 1, which pads nothing.
        by_rows: whether steps run by turns, row by row, where that makes the arena smaller; by
            default where nothing is padded, for memory is what such targets lack.

    Returns:
        The network, and its missions as far as it has their slots: a mask of scores alone is left
        out, since nobody reads what it drops.

    Raises:
        UnsupportedError: an operator that has no kernel in 8 bits.
    """
    kept = Kept(block)
    low = lower(graph, kept)
    if _masks_scores_alone(low, missions):
        graph = _without_output(graph)
        kept = Kept(block)
        low = lower(graph, kept)
    for step in low.steps:
        if step.kernel in _REFUSED:
            raise UnsupportedError(
                f"the C engine computes {step.kernel!r} of {step.name!r} in float32 only; expected "
                "a network without it. Export without --int8, or with --format onnx"
            )
    low, graph = _with_float_scores(low, graph)
    program = place_steps(low, graph, by_rows=block == 1 if by_rows is None else by_rows)
    missions = tuple(_in_slots(mission, program) for mission in missions)
    layers = {
        step.name: kept_layer(kept.filters[step.strips[0].weights], step, missions)
        for step in program.steps
        if step.strips
    }
    filters = {name: layer.all for name, layer in layers.items()}
    scales = scales_of(low, program, ranges, filters)
    return _Quantiser(graph, kept, program, scales, layers).run(), missions


def _masks_scores_alone(low: Lowered, missions: Sequence[MissionBits]) -> bool:
    """Whether the last step only sets scores to zero that no mission gives out."""
    last = low.steps[-1]
    return last.kernel == "mask" and all(
        bool(mission.keep[last.name].reshape(-1)[list(mission.outputs)].all())
        for mission in missions
    )


def _without_output(graph: Graph) -> Graph:
    *nodes, last = graph.nodes
    return Graph(tuple(nodes), graph.params, last.inputs[0])


def _in_slots(mission: MissionBits, program: Program) -> MissionBits:
    slots = program.slots
    return replace(
        mission,
        keep={name: v for name, v in mission.keep.items() if name in slots},
        live={name: v for name, v in mission.live.items() if name in slots},
        refits={name: v for name, v in mission.refits.items() if name in slots},
    )


def _with_float_scores(low: Lowered, graph: Graph) -> tuple[Lowered, Graph]:
    """Scores as float32: 256 steps would make some of them equal.

    A layer or mean at the end keeps its sums; anything else is made float by a step of its own.
    """
    end, views = low.output, []
    readers = consumers(graph)
    while end in low.views and low.views[end] == View(low.views[end].of):
        views.append(end)
        end = low.views[end].of
    alone = len(readers[end]) == (1 if views else 0)
    last = next((step for step in low.steps if step.writes == end), None)
    channels, height, width = low.shapes[end]
    kinds = {"conv": "conv_scores", "adaptive_avg": "mean_scores"}
    if last is not None and alone and height == width == 1 and last.kernel in kinds:
        low.steps[low.steps.index(last)] = replace(last, kernel=kinds[last.kernel])
        for name in (end, *views):
            low.shapes[name] = (_SCORE_BYTES * channels, 1, 1)
        return low, graph
    count = math.prod(low.shapes[low.output])
    low.steps.append(Step("scores", _SCORES, (low.output,), _SCORES))
    low.shapes[_SCORES] = (_SCORE_BYTES * count, 1, 1)
    node = Node(_SCORES, "act", (low.output,), (count,))
    low.output = _SCORES
    return low, Graph((*graph.nodes, node), graph.params, _SCORES)


class _Quantiser:
    def __init__(
        self,
        graph: Graph,
        kept: Kept,
        program: Program,
        scales: Mapping[str, Scale],
        layers: Mapping[str, KeptLayer],
    ) -> None:
        self.graph, self.kept, self.program, self.scales = graph, kept, program, scales
        self.layers = layers
        self.filters: dict[str, Filters] = {}
        self.own: dict[str, dict[str, Filters]] = {}
        self.tables: dict[str, NDArray[np.integer]] = {}

    def run(self) -> Quantised:
        steps = tuple(replace(step, settings=self._settings(step)) for step in self.program.steps)
        slots = {name: self._slot(slot) for name, slot in self.program.slots.items()}
        program = replace(self.program, steps=steps, slots=slots)
        return Quantised(program, self.scales, self.filters, self.own, self.tables, self.kept.block)

    def _slot(self, slot: Slot) -> Slot:
        """Scores take four bytes each, but are masked one by one."""
        channels, height, width = slot.shape
        if self.program.steps[slot.step].kernel == "conv_scores":
            channels //= _SCORE_BYTES
        return replace(slot, shape=(channels, height, width))

    def _settings(self, step: Step) -> dict[str, object]:
        s = dict(step.settings)
        match step.kernel:
            case "conv" | "depthwise" | "conv_scores":
                return s | self._layer(step)
            case "binary":
                return s | self._binary(step)
            case "affine":
                return s | self._affine(step)
            case "activation":
                self.tables[step.name] = self._activation(step)
            case "avg_pool" | "adaptive_avg":
                return s | self._mean(step)
            case "mean_scores":
                return (
                    s
                    | {"x_zero": self.scales[step.reads[0]].zero}
                    | {"unit": float(np.float32(self.scales[step.reads[0]].step))}
                )
            case "scores":
                x = self.scales[step.reads[0]]
                return {"x_zero": x.zero, "unit": float(np.float32(x.step))}
            case "copy":
                return s | self._copy(step)
            case "lrn":
                return s | self._lrn(step)
            case "input":
                y = self.scales[step.writes]
                return {"zero": y.zero, "per_step": float(np.float32(1.0 / y.step))}
            case "border":
                return {"zero": self._border(step)}
            case "mask":
                return {"zero": self.scales[step.writes].zero}
        return s

    def _clamp(self, step: Step) -> dict[str, int]:
        y = self.scales[step.writes]
        return {
            "zero": y.zero,
            "lo": byte_of(step.settings["lo"], y),
            "hi": byte_of(step.settings["hi"], y),
        }

    def _layer(self, step: Step) -> dict[str, object]:
        x = self.scales[step.reads[0]]
        scores = step.kernel == "conv_scores"
        y = None if scores else self.scales[step.writes]
        shared, own = whole_layer(step, self.layers[step.name], x, y)
        self.filters[step.name] = shared
        for mission, filters in own.items():
            self.own.setdefault(mission, {})[step.name] = filters
        bounds = {"zero": 0} if scores else self._clamp(step)
        return {**bounds, "x_zero": x.zero, "shift": shared.shift}

    def _binary(self, step: Step) -> dict[str, int]:
        a, b = (self.scales[name] for name in step.reads)
        y = self.scales[step.writes]
        zeros = {"a_zero": a.zero, "b_zero": b.zero, **self._clamp(step)}
        if step.settings["multiply"]:
            (factor,), shift = shifted(np.array([a.step * b.step / y.step]), 14)
            return zeros | {"a_factor": int(factor), "b_factor": 0, "shift": shift}
        (first, second), shift = shifted(np.array([a.step / y.step, b.step / y.step]), 21)
        return zeros | {"a_factor": int(first), "b_factor": int(second), "shift": shift}

    def _affine(self, step: Step) -> dict[str, int]:
        x, y = self.scales[step.reads[0]], self.scales[step.writes]
        scale, shift = (self.kept.values[step.settings[name]] for name in ("scale", "shift"))
        # The largest sum of both parts stays within 31 bits.
        both = np.concatenate([scale * x.step / y.step * 2 * HIGHEST, 2 * shift / y.step])
        _, bits = shifted(both.reshape(-1), 30)
        factors = np.rint(scale * x.step / y.step * 2.0**bits)
        offsets = np.rint(shift / y.step * 2.0**bits)
        self.tables[step.name] = np.stack([factors, offsets]).astype(np.int32)
        return {"x_zero": x.zero, "shift": bits, **self._clamp(step)}

    def _activation(self, step: Step) -> NDArray[np.uint8]:
        """The output's byte for each of the input's."""
        x, y = self.scales[step.reads[0]], self.scales[step.writes]
        node = self.graph[step.name]
        numbers = torch.from_numpy(x.step * (np.arange(HIGHEST + 1) - x.zero))
        wanted = APPLY[node.op](node, {}, numbers.double()).numpy()
        return np.array([byte_of(float(v), y) for v in wanted], np.uint8)

    def _mean(self, step: Step) -> dict[str, int]:
        x, y = self.scales[step.reads[0]], self.scales[step.writes]
        ratio = x.step / y.step
        shift = 30 - math.floor(math.log2(ratio))
        shift = min(max(shift, 1), 46)
        return {
            "x_zero": x.zero, "zero": y.zero, "factor": round(ratio * 2.0**shift), "shift": shift,
        }  # fmt: skip

    def _copy(self, step: Step) -> dict[str, int]:
        x, y = self.scales[step.reads[0]], self.scales[step.writes]
        if x != y:
            numbers = x.step * (np.arange(HIGHEST + 1) - x.zero)
            self.tables[step.name] = np.array([byte_of(float(v), y) for v in numbers], np.uint8)
        return {"value": byte_of(float(step.settings.get("value", 0.0)), y)}

    def _lrn(self, step: Step) -> dict[str, int]:
        """A table of ``x.step / y.step / (k + share * squares) ** beta`` over sums of squares."""
        s, x, y = step.settings, self.scales[step.reads[0]], self.scales[step.writes]
        window = s["before"] + 1 + s["after"]
        largest = max(x.zero, HIGHEST - x.zero) ** 2 * window
        places = max(0, largest.bit_length() - _LRN_BITS)
        squares = np.arange((largest >> places) + 2, dtype=np.float64) * 2.0**places
        factors = x.step / y.step * (s["k"] + s["share"] * x.step**2 * squares) ** -s["beta"]
        # A factor times a byte, and a difference times what lies between two places, fit.
        table, shift = shifted(factors, min(21, 30 - places))
        self.tables[step.name] = table
        self.tables[f"{step.name}:bands"] = self.kept.values[s["bands"]].astype(np.uint8)
        return {"x_zero": x.zero, "zero": y.zero, "places": places, "shift": shift}

    def _border(self, step: Step) -> int:
        """What zero is to those that read it."""
        zeros = {self.scales[name].zero for name in border_readers(self.program, step.name)}
        assert len(zeros) <= 1, "readers of one border share a scale"
        return zeros.pop() if zeros else 0


def input_bytes(x: NDArray[np.float32], step: Step) -> NDArray[np.int64]:
    """What normalised numbers become by an input's step, rounded half to even, in float32."""
    s = step.settings
    lo, hi = np.float32(-s["zero"]), np.float32(HIGHEST - s["zero"])
    return np.rint(np.clip(x * np.float32(s["per_step"]), lo, hi)).astype(np.int64) + s["zero"]
