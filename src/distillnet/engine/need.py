"""Which neurons of each layer anybody needs, and masks for those that nobody does.

A mask after a residual add also spares the convolution before the add the neurons that the mask
drops. A mask put there changes nothing, and the layer skips them.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.cost import need_of_input
from distillnet.cut.surgery import insert_masks
from distillnet.graph import Graph, consumers
from distillnet.graph.operators import LAYERS, Node, clamp_of

__all__ = ["Keeps", "needed_neurons", "with_masks_behind", "with_needed_masks"]

Keep = NDArray[np.bool_]
Keeps = Mapping[str, Keep]  # by mask node, (C, H, W) or (F,)

_SUFFIX = ":needed"


def needed_neurons(graph: Graph, keeps: Keeps) -> dict[str, Keep]:
    """Which neurons of every node have to be computed, backwards; ``keeps`` by mask node."""
    readers = consumers(graph)
    needed: dict[str, Keep] = {}
    for node in reversed(graph.nodes):
        need = np.zeros(node.shape, bool)
        if node.name == graph.output:
            need[...] = True
        for reader in readers[node.name]:
            of_reader = torch.from_numpy(needed[reader.name])
            need |= need_of_input(graph, reader, node, of_reader).numpy()
        if node.op == "mask" and node.name in keeps:
            need &= keeps[node.name]
        needed[node.name] = need
    return needed


def with_needed_masks(
    graph: Graph, missions: Sequence[Keeps]
) -> tuple[Graph, tuple[dict[str, Keep], ...]]:
    """The graph with masks behind layers of which a mission needs a part, and all keep maps.

    Args:
        missions: keep maps by mask node of ``graph``.
    """
    readers = consumers(graph)
    needs = [needed_neurons(graph, keeps) for keeps in missions]
    ends: dict[str, str] = {}  # value to mask -> its mask
    for node in graph.nodes:
        if node.op not in LAYERS:
            continue
        end, masked = _end_of_layer(graph, node, readers)
        if not masked and end != graph.output and not all(n[end].all() for n in needs):
            ends[end] = f"{end}{_SUFFIX}"
    either = {end: np.logical_or.reduce([need[end] for need in needs]) for end in ends}
    more = tuple(
        {**keeps, **{name: need[end] for end, name in ends.items()}}
        for keeps, need in zip(missions, needs, strict=True)
    )
    masks = {end: (name, torch.from_numpy(either[end])) for end, name in ends.items()}
    return insert_masks(graph, masks), more


def with_masks_behind(graph: Graph, layers: Collection[str]) -> Graph:
    """The graph with a mask that keeps all behind those of the layers that have none."""
    readers = consumers(graph)
    ends = (_end_of_layer(graph, graph[name], readers) for name in layers)
    return insert_masks(
        graph,
        {
            end: (f"{end}{_SUFFIX}", torch.ones(graph[end].shape, dtype=torch.bool))
            for end, masked in ends
            if not masked
        },
    )


def _end_of_layer(graph: Graph, layer: Node, readers: Mapping[str, list[Node]]) -> tuple[str, bool]:
    """What is computed together with a layer (see ``lower``), and whether a mask follows."""
    end = layer.name
    while len(readers[end]) == 1 and end != graph.output:
        after = readers[end][0]
        if after.op == "mask":
            return end, True
        if after.op != "affine" and clamp_of(after) is None:
            break
        end = after.name
    return end, False
