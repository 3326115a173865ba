"""What a mission brings of its own in place of shared weights, as the kernels read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.engine.packing import Weights
from distillnet.engine.spans import ActiveStrip
from distillnet.engine.steps import BLOCK, MissionBits, Program, Refit, Step
from distillnet.graph import Graph

__all__ = [
    "LayerRefit",
    "OwnWeights",
    "columns_of",
    "graph_of_mission",
    "in_program_order",
    "may_be_refitted",
    "own_biases",
    "own_weights",
]

Floats = NDArray[np.float32]
Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerRefit:
    """A layer's own parameters in the shapes and the order of the original network.

    Attributes:
        bias: (M,).
        weight: (M, C, Kh, Kw) or (M, F); None where it is the original's.
    """

    bias: Floats
    weight: Floats | None = None


def may_be_refitted(step: Step, graph: Graph) -> bool:
    """Whether a mission may bring weights for a step: a layer of one group, nothing folded in."""
    node = graph[step.name] if step.kernel == "conv" else None
    if node is None or node.attrs.get("groups", 1) != 1:
        return False
    name, until = step.writes, step.name
    while name != until:  # back from the slot to the layer
        if graph[name].op == "affine":
            return False
        name = graph[name].inputs[0]
    return True


def columns_of(step: Step, graph: Graph, orders: Mapping[str, Order]) -> Order | None:
    """The order in which a step's filters see channels, new position to old channel."""
    source = graph[graph[step.name].inputs[0]]
    if step.settings["source"] != source.shape[0]:  # a linear layer that reads a map as it lies
        source = graph[source.inputs[0]]
    return orders.get(source.name)


def in_program_order(
    refit: LayerRefit,
    size: tuple[int, int],
    source: int,
    rows: Order | None,
    columns: Order | None,
) -> Refit:
    """A layer's parameters as the program has them: channels in its order, taps in the kernels'."""
    bias, weight = refit.bias, refit.weight
    if weight is not None:
        weight_mckk = weight.reshape(len(weight), source, *size)
        if columns is not None:
            weight_mckk = weight_mckk[:, columns]
        weight = weight_mckk.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    if rows is None:
        return Refit(bias, weight)
    return Refit(bias[rows], None if weight is None else weight[rows])


def graph_of_mission(graph: Graph, program: Program, mission: MissionBits) -> Graph:
    """A program's graph with one mission's keep maps and its own parameters in it.

    Args:
        program: of ``graph``, whose slots are named as its masks.
    """
    params = dict(graph.params)
    nodes = {node.name: node for node in graph.nodes}
    for slot, keep in mission.keep.items():
        params[nodes[slot].params["keep"]] = torch.from_numpy(keep.reshape(nodes[slot].shape))
    for slot, refit in mission.refits.items():
        step = program.steps[program.slots[slot].step]
        layer = nodes[step.name]
        own = {"bias": refit.bias}
        if refit.weight is not None:
            size, source = step.settings["kernel"], step.settings["source"]
            weight_mkkc = refit.weight.reshape(len(refit.weight), *size, source)
            shape = graph.params[layer.params["weight"]].shape
            own["weight"] = weight_mkkc.transpose(0, 3, 1, 2).reshape(shape)
        names = {role: f"{layer.name}:{mission.name}.{role}" for role in own}
        kind = graph.params[layer.params["weight"]].dtype
        for role, values in own.items():
            params[names[role]] = torch.from_numpy(np.ascontiguousarray(values)).to(kind)
        nodes[layer.name] = replace(layer, params={**layer.params, **names})
    return Graph(tuple(nodes.values()), params, graph.output)


@dataclass(frozen=True, eq=False)
class OwnWeights:
    """A layer's weights, blocks of its strips one behind the other, of live taps only.

    Attributes:
        begins: where each strip's begin; a strip that computes nothing has none, and 0 here.
        taps: of a filter.
    """

    values: Floats
    begins: tuple[int, ...]
    taps: int


def own_weights(
    active: Sequence[ActiveStrip], refit: Refit, live: NDArray[np.bool_] | None
) -> OwnWeights:
    """Pack a layer's refitted weights for the strips that a mission computes."""
    assert refit.weight is not None
    weight = refit.weight if live is None else refit.weight[:, live]
    store = Weights()
    begins = []
    for part in active:
        rows = slice(part.strip.channels.start, part.strip.channels.stop)
        idle = part.spans is not None and not part.spans
        begins.append(0 if idle else store.add_filters(weight[rows], refit.bias[rows]))
    values = np.concatenate([np.zeros(0, np.float32), *store.parts])
    return OwnWeights(values, tuple(begins), weight.shape[1])


def own_biases(active: Sequence[ActiveStrip], bias: Floats) -> Floats:
    """Biases for all blocks of all strips in turn, zeros behind the last channel of each."""
    parts = []
    for part in active:
        own = bias[part.strip.channels.start : part.strip.channels.stop]
        parts.append(np.pad(own, (0, -len(own) % BLOCK)))
    return np.concatenate(parts).astype(np.float32)
