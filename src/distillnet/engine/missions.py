"""Missions of one program: what each needs of every layer, and which scores it reads."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.engine.emit import MissionBits
from distillnet.engine.steps import Program
from distillnet.graph import Graph
from distillnet.operators import LAYERS, Node
from distillnet.plan import Plan

__all__ = ["compact_mission", "switchable", "switchable_mission"]

_SLOT = ":mission"


def _numpy(keep: Tensor) -> NDArray[np.bool_]:
    """Keep maps (C, H, W); features become maps of 1 x 1."""
    bits: NDArray[np.bool_] = keep.detach().cpu().bool().numpy()
    return bits if bits.ndim == 3 else bits.reshape(-1, 1, 1)


def _own_masks(graph: Graph) -> dict[str, NDArray[np.bool_]]:
    """The masks that are in a graph, whatever the mission."""
    return {
        node.name: _numpy(graph.params[node.params["keep"]])
        for node in graph.nodes
        if node.op == "mask"
    }


def compact_mission(
    program: Program, graph: Graph, name: str, classes: Sequence[str]
) -> MissionBits:
    """The only mission of a compact network: its masks are in the graph."""
    keep = {slot: bits for slot, bits in _own_masks(graph).items() if slot in program.slots}
    return MissionBits(name, keep, tuple(range(len(classes))), tuple(classes))


def switchable(graph: Graph, sites: Collection[str]) -> Graph:
    """The graph with a slot after each of ``sites``, and one for the scores where a layer makes
    them: a mission computes its own scores only.
    """
    nodes: list[Node] = []
    params = dict(graph.params)
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs)))
        is_head = node.name == graph.output and node.op in LAYERS
        if node.name in sites or is_head:
            slot = f"{node.name}{_SLOT}"
            params[f"{slot}.keep"] = torch.ones(node.shape, dtype=torch.bool)
            nodes.append(Node(slot, "mask", (node.name,), node.shape, {}, {"keep": f"{slot}.keep"}))
            renamed[node.name] = slot
    return Graph(tuple(nodes), params, renamed.get(graph.output, graph.output))


def switchable_mission(
    program: Program, graph: Graph, plan: Plan, name: str, classes: Sequence[str]
) -> MissionBits:
    """A mission of ``switchable(graph, ...)``: the plan's keep maps and scores, ranks ignored.

    ``graph`` is the one without slots.
    """
    n_scores = graph[graph.output].shape[0]
    outputs = tuple(range(n_scores)) if plan.outputs is None else plan.outputs
    keep = _own_masks(graph) | {f"{site}{_SLOT}": _numpy(bits) for site, bits in plan.keep.items()}
    head = f"{graph.output}{_SLOT}"
    if head in program.slots and graph.output not in plan.keep:
        needed = np.zeros((n_scores, 1, 1), bool)
        needed[list(outputs)] = True
        keep[head] = needed
    known = {slot: bits for slot, bits in keep.items() if slot in program.slots}
    lost: Mapping[str, NDArray[np.bool_]] = {
        slot: bits for slot, bits in keep.items() if slot not in known and not bits.all()
    }
    if lost:
        raise ValueError(f"the program has no slots for {sorted(lost)}")
    return MissionBits(name, known, outputs, tuple(classes))
