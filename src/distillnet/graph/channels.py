"""Which channels stand or fall together, and where a neuron can be switched off.

Every channel that a convolution or linear layer makes is an *atom*. Atoms that only make sense
together (the two sides of a residual add, input and output of a depthwise convolution, one group of
a grouped one, both uses of a shared weight) are merged into one *channel class* (union-find). A
class is removed everywhere or nowhere. A *group* in the report is a set of layers that classes
tie together.

A *site* is where a layer's output is looked at and masked: the last value of a run of pointwise
operators (batch norm, activation, add, gate), "every layer's output after its nonlinearity". What
follows a site (pooling, concat, padding, LRN, flatten) maps zero to zero, so that a class whose
sites are all masked can be cut out without changing the result by anything but rounding. Group norm
does not (it adds a constant), and is a site of its own where nothing pointwise follows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillnet.graph.graph import Graph, consumers
from distillnet.graph.operators import LAYERS, POINTWISE, UNMASKING, Node

__all__ = ["MAKES_SCORES", "Channels", "Group", "analyse", "groups"]


MAKES_SCORES = (
    "the network's scores"  # why a class is pinned that goes only with the mission's others
)

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """The channel classes of a graph.

    Attributes:
        of: by node name, the class (C,) or (F,) of each channel or feature.
        pinned: by class, why it cannot be removed; absent where it can.
        outputs: the classes (classes,) of the network's scores.
        sites: names of the nodes whose values may be masked, in execution order.
        site_of: by convolution or linear layer, its site.
    """

    of: Mapping[str, Ids]
    pinned: Mapping[int, str]
    outputs: Ids
    sites: tuple[str, ...]
    site_of: Mapping[str, str]
    count: int


@dataclass(frozen=True)
class Group:
    """Layers whose output channels are tied, how many classes they have, and how many may go."""

    layers: tuple[str, ...]
    channels: int
    removable: int
    reason: str  # why the others stay; empty when all may go


class _Atoms:
    """Union-find over channels."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.pins: list[tuple[int, str]] = []

    def new(self, count: int) -> Ids:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, atom: int) -> int:
        while self.parent[atom] != atom:
            self.parent[atom] = self.parent[self.parent[atom]]
            atom = self.parent[atom]
        return atom

    def union(self, a: Ids, b: Ids) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            self.parent[self.find(i)] = self.find(j)

    def pin(self, atoms: Ids, why: str) -> None:
        self.pins.extend((atom, why) for atom in atoms.tolist())


def analyse(graph: Graph) -> Channels:
    """Find the channel classes and the sites of a graph.

    A two-layer chain has as many free classes as its hidden layer has channels:

    >>> import torch
    >>> from distillnet.graph.capture import capture
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(),
    ...                           torch.nn.Linear(8 * 36, 2))
    >>> channels = analyse(capture(net, (8, 8)))
    >>> channels.count - len(channels.pinned), channels.sites
    (8, ('0:relu',))
    """
    atoms = _Atoms()
    of: dict[str, Ids] = {}
    tied: dict[tuple[str, str], Ids] = {}  # (parameter, "in" or "out") -> its atoms

    def tie(param: str, side: str, ids: Ids) -> None:
        known = tied.setdefault((param, side), ids)
        if len(known) != len(ids):  # one weight in convolutions of 1 and of G groups
            for both in (known, ids):
                atoms.pin(both, f"{param!r} is shared by layers of different widths")
        elif known is not ids:
            atoms.union(known, ids)

    for node in graph.nodes:
        inputs = [of[name] for name in node.inputs]
        of[node.name] = _propagate(node, inputs, atoms, tie, graph)
    atoms.pin(of[graph.input.name], "the network's input")

    roots = np.array([atoms.find(i) for i in range(len(atoms.parent))], dtype=np.int64)
    kinds, dense = np.unique(roots, return_inverse=True)
    classes = {name: dense[ids] for name, ids in of.items()}
    pinned: dict[int, str] = {}
    for atom, why in atoms.pins:
        pinned.setdefault(int(dense[atom]), why)
    outputs = classes[graph.output]
    for node in graph.nodes:  # a score that other scores are made of stays when it is dropped
        if (node.op in LAYERS and node.attrs.get("groups", 1) == 1) or node.op == "lrn":
            for c in np.intersect1d(classes[node.inputs[0]], outputs).tolist():
                pinned.setdefault(c, f"a score that {node.name!r} makes others of")
    for c in outputs.tolist():
        pinned.setdefault(c, MAKES_SCORES)
    sites, site_of = _sites(graph, classes, pinned)
    return Channels(classes, pinned, outputs, sites, site_of, len(kinds))


def _propagate(
    node: Node,
    inputs: list[Ids],
    atoms: _Atoms,
    tie: Callable[[str, str, Ids], None],
    graph: Graph,
) -> Ids:
    """The atoms of a node's output, from those of its inputs."""
    match node.op:
        case "input":
            return atoms.new(node.shape[0])
        case "conv" | "linear":
            out = atoms.new(node.shape[0])
            weight = node.params["weight"]
            tie(weight, "in", inputs[0])
            tie(weight, "out", out)
            if "bias" in node.params:
                tie(node.params["bias"], "out", out)
            n_groups = node.attrs.get("groups", 1)
            if n_groups > 1:  # one convolution group goes as a whole, inputs and outputs
                for part_in, part_out in zip(
                    np.split(inputs[0], n_groups), np.split(out, n_groups), strict=True
                ):
                    members = np.concatenate([part_in, part_out])
                    atoms.union(members[:-1], members[1:])
            return out
        case "add" | "mul":
            x, y = inputs
            if len(x) != len(y):  # one map for all channels, e.g. spatial attention
                narrow, wide = (x, y) if len(x) < len(y) else (y, x)
                atoms.pin(narrow, "one channel that acts on many")
                return wide
            atoms.union(x, y)
            return x
        case "cat":
            return np.concatenate(inputs)
        case "gather":
            return inputs[0][list(node.attrs["index"])]
        case "flatten":
            _, *rest = graph[node.inputs[0]].shape
            return np.repeat(inputs[0], int(np.prod(rest)))
        case "affine":
            tie(node.params["scale"], "out", inputs[0])
            tie(node.params["shift"], "out", inputs[0])
            return inputs[0]
        case "layer_norm":
            # Its statistics run over all channels: one that is gone would change the others.
            atoms.pin(inputs[0], f"layer norm {node.name!r} mixes all channels")
            return inputs[0]
        case "group_norm":
            n_groups = node.attrs["groups"]
            if n_groups == 1:
                atoms.pin(inputs[0], f"group norm {node.name!r} mixes all channels")
                return inputs[0]
            for part in np.split(inputs[0], n_groups):  # a group goes as a whole
                atoms.union(part[:-1], part[1:])
            return inputs[0]
        case "channel_max":
            out = atoms.new(1)
            atoms.pin(out, f"{node.name!r} is one map of many channels")
            return out
        case "pad":
            if node.attrs["value"] != 0:
                atoms.pin(inputs[0], f"{node.name!r} pads with {node.attrs['value']}")
            return inputs[0]
        case _:
            return inputs[0]


def _sites(
    graph: Graph, classes: Mapping[str, Ids], pinned: Mapping[int, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    readers = consumers(graph)

    def continues(name: str) -> Node | None:
        after = readers[name]
        return after[0] if len(after) == 1 and after[0].op in POINTWISE else None

    sites = tuple(
        node.name
        for node in graph.nodes
        if node.op in POINTWISE | LAYERS | UNMASKING
        and node.name != graph.output
        and continues(node.name) is None
        and any(c not in pinned for c in classes[node.name].tolist())
    )
    site_of = {}
    for layer in graph.nodes:
        if layer.op in LAYERS:
            last = layer
            while (after := continues(last.name)) is not None:
                last = after
            site_of[layer.name] = last.name
    return sites, site_of


def groups(graph: Graph, channels: Channels) -> tuple[Group, ...]:
    """The groups of layers that are tied, in execution order."""
    makers: dict[int, list[str]] = {}
    for node in graph.nodes:
        if node.op in LAYERS:
            for c in set(channels.of[node.name].tolist()):
                makers.setdefault(c, []).append(node.name)
    leader = {node.name: node.name for node in graph.nodes if node.op in LAYERS}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for members in makers.values():
        for member in members[1:]:
            leader[find(member)] = find(members[0])
    by_leader: dict[str, list[str]] = {}
    for name in leader:
        by_leader.setdefault(find(name), []).append(name)
    result = []
    for layers in by_leader.values():
        ids = set(np.concatenate([channels.of[name] for name in layers]).tolist())
        reasons = dict.fromkeys(channels.pinned[c] for c in sorted(ids) if c in channels.pinned)
        removable = sum(c not in channels.pinned for c in ids)
        result.append(Group(tuple(layers), len(ids), removable, "; ".join(reasons)))
    return tuple(result)
