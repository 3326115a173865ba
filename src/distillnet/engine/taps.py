"""Which inputs of a layer are zero for all images of a mission, so that its taps are left out.

What a mission drops of a map is zero, and stays zero through pools, concatenations and the like. A
convolution multiplies such a channel with its weights all the same; a linear layer behind a map
reads weights from memory for it, which takes longer than anything else it does. So a mission lists
the runs of taps that count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.engine.steps import Step
from distillnet.graph import Graph, run
from distillnet.graph.operators import LAYERS, Node

__all__ = [
    "Segment",
    "alive_neurons",
    "inputs_of_layers",
    "layers_with_dead_inputs",
    "live_of",
    "live_segments",
    "live_taps",
    "segment_rows",
    "whole_segments",
]

Keep = NDArray[np.bool_]

# Gaps of so many taps are computed rather than skipped: a run that ends costs as much.
_GAP = 4

# Operators whose result is zero where all that they see is, and, of ones and zeros, only there.
_THROUGH = frozenset(
    {"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean", "flatten",
     "unflatten", "gather", "sample", "cat"}
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """Taps of a filter that lie side by side.

    Attributes:
        x: where the first lies, in numbers from the first tap of an output.
        w: which tap it is, in the order of the weights.
        n: how many.
    """

    x: int
    w: int
    n: int


def alive_neurons(graph: Graph, keeps: Mapping[str, Keep]) -> dict[str, Keep]:
    """Which neurons of every node may be anything but zero; ``keeps`` by mask node."""
    alive: dict[str, Keep] = {}
    with torch.no_grad():
        for node in graph.nodes:
            alive[node.name] = _alive(graph, node, [alive[i] for i in node.inputs], keeps)
    return alive


def _alive(graph: Graph, node: Node, inputs: list[Keep], keeps: Mapping[str, Keep]) -> Keep:
    if node.op == "mask":
        own = graph.params[node.params["keep"]].cpu().numpy().astype(bool)
        kept: Keep = inputs[0] & keeps.get(node.name, own).reshape(node.shape)
        return kept
    everything: Keep = np.ones(node.shape, bool)
    if not inputs or node.op in LAYERS or all(x.all() for x in inputs):
        return everything
    if node.op in ("add", "mul"):
        both = np.broadcast_arrays(*inputs) if len(inputs) > 1 else inputs * 2
        either: Keep = np.logical_or(*both) if node.op == "add" else np.logical_and(*both)
        return either
    plain_pad = node.op == "pad" and not node.attrs["value"]
    if node.op in _THROUGH or plain_pad:
        seen = {i: torch.from_numpy(x)[None].double() for i, x in zip(node.inputs, inputs,
                                                                   strict=True)}  # fmt: skip
        found: Keep = (run(graph, seen, [node.name])[node.name][0] != 0).numpy()
        return found
    if node.op in ("act", "affine", "lrn"):  # each neuron by itself, or one that is zero stays so
        zero = run(
            graph, {node.inputs[0]: torch.zeros(1, *node.shape, dtype=_dtype(graph))}, [node.name]
        )[node.name][0]
        return inputs[0] | (zero != 0).numpy()
    return everything


def _dtype(graph: Graph) -> torch.dtype:
    kinds = (p.dtype for p in graph.params.values() if p.is_floating_point())
    return next(kinds, torch.get_default_dtype())


def layers_with_dead_inputs(graph: Graph, missions: Sequence[Mapping[str, Keep]]) -> set[str]:
    """The layers that have inputs which are always zero in some mission."""
    found = set()
    for keeps in missions:
        alive = alive_neurons(graph, keeps)
        found |= {node.name for node in graph.nodes if not _inputs(node, alive).all()}
    return found


def inputs_of_layers(graph: Graph, keeps: Mapping[str, Keep]) -> dict[str, Keep]:
    """By layer of one group, bool (C,) or (F,): which inputs are not always zero."""
    alive = alive_neurons(graph, keeps)
    return {
        node.name: _inputs(node, alive)
        for node in graph.nodes
        if node.op in LAYERS and node.attrs.get("groups", 1) == 1
    }


def _inputs(node: Node, alive: Mapping[str, Keep]) -> Keep:
    """What a layer's filters see: whole channels of a map, single features."""
    if node.op not in LAYERS or node.attrs.get("groups", 1) != 1:
        return np.ones(1, bool)
    source = alive[node.inputs[0]]
    channels: Keep = np.any(source.reshape(len(source), -1), axis=1)
    return channels


def live_taps(step: Step, node: Node, alive: Mapping[str, Keep]) -> Keep | None:
    """The taps (taps,) of a step's filters that count, by what is ``alive``; None where all do."""
    if step.kernel != "conv":
        return None
    return live_of(_inputs(node, alive), step.settings["kernel"], step.settings["source"])


def live_of(
    inputs: Keep, size: tuple[int, int], source: int, columns: NDArray[np.int64] | None = None
) -> Keep | None:
    """Taps in the order of the kernels, for inputs (C,), or (F,) of a linear layer.

    Args:
        size: of the kernel; ``source`` the channels that it reads.
        columns: their order in the program, new position to old channel.

    >>> int(live_of(np.array([True] * 9 + [False] * 9), (1, 1), 18).sum())
    9
    """
    if inputs.all():
        return None
    if len(inputs) != source:  # features of a map, in torch's order
        maps_chw = inputs.reshape(source, *size)
    else:
        maps_chw = np.broadcast_to(inputs[:, None, None], (source, *size))
    if columns is not None:
        maps_chw = maps_chw[columns]
    closed: Keep = maps_chw.transpose(1, 2, 0).reshape(-1).copy()
    at = np.flatnonzero(~closed)
    for gap in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1):
        if len(gap) <= _GAP:
            closed[gap] = True
    return None if closed.all() else closed


def whole_segments(
    rows: int, row_step: int, segments: int, segment_step: int, run: int
) -> tuple[Segment, ...]:
    """All taps of a filter, by where they lie.

    >>> whole_segments(2, 10, 1, 0, 6)
    (Segment(x=0, w=0, n=6), Segment(x=10, w=6, n=6))
    """
    return tuple(
        Segment(r * row_step + s * segment_step, (r * segments + s) * run, run)
        for r in range(rows)
        for s in range(segments)
    )


def live_segments(
    whole: Sequence[Segment], live: Keep | None, *, packed: bool = False
) -> tuple[Segment, ...]:
    """What is left of all taps; ``packed`` where weights are of live taps only, one by one.

    >>> live = np.array([1, 1, 0, 0, 1, 1], bool)
    >>> live_segments(whole_segments(2, 10, 1, 0, 3), live, packed=True)
    (Segment(x=0, w=0, n=2), Segment(x=11, w=2, n=2))
    """
    if live is None:
        return tuple(whole)
    found: list[Segment] = []
    count = 0
    for part in whole:
        at = np.flatnonzero(live[part.w : part.w + part.n])
        for run_ in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []:
            first = int(run_[0])
            w = count if packed else part.w + first
            found.append(Segment(part.x + first, w, len(run_)))
            count += len(run_)
    return tuple(found)


def segment_rows(segments: Sequence[Segment]) -> list[str]:
    """As C has them; one that is empty where there is none, for no table of C is."""
    return [f"{{{s.x}, {s.w}, {s.n}}}" for s in segments] or ["{0, 0, 0}"]
