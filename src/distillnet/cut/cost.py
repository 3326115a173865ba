"""What a network costs: multiply-accumulates and parameters, whole or under a plan.

Convention: one multiply-add is one MAC; convolutions and linear layers count, nothing else; per
image. A convolution has Hout Wout M (N / G) K K of them, a linear layer M N; the few of a gate's
convolution over channels are left out. Biases count as
parameters, not as MACs. Batch norm is folded into what it follows, so its numbers are not counted
twice.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.thin import Split, halves
from distillnet.graph import Graph, consumers
from distillnet.graph.channels import Channels
from distillnet.graph.operators import LAYERS, POINTWISE, WHOLE_ROLES, Node

__all__ = [
    "LAYER_SHARE",
    "Cost",
    "LayerCost",
    "class_macs",
    "class_savings",
    "class_work",
    "cost",
    "inception_macs",
    "is_inception",
    "need_of_input",
    "node_overhead",
]

# Operators that make a channel, or as many features, of each channel by itself.
_CHANNEL_BY_CHANNEL = frozenset(
    {"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean", "flatten", "pad",
     "sample"}
)  # fmt: skip
_LRN_PASSES = 5  # squares, two roots, two products
# A layer writes its output while it is at hand, which takes a fraction of what it takes an operator
# that reads numbers to write others: on this project's machine 8 MACs for 27 of a pool.
LAYER_SHARE = 0.25


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer. ``macs`` counts complete removal only."""

    params: int
    macs: int
    macs_with_partial: int


@dataclass(frozen=True)
class Cost:
    """A network's costs; ``layers`` by layer name in execution order."""

    params: int
    macs: int
    macs_with_partial: int
    layers: Mapping[str, LayerCost]


def cost(graph: Graph, channels: Channels, plan: Plan | None = None) -> Cost:
    """Count the MACs and parameters that a plan leaves, without carrying it out.

    Removing a channel saves its filter, and its slice in every consumer (Eq. 9, 10). A neuron that
    is removed partially saves its own N K K, provided nobody else needs it. What a layer costs
    that the plan splits is said in ``thin``.
    """
    plan = plan or Plan()
    gone = removed_classes(channels, plan)
    needed = _needed_neurons(graph, channels, plan, gone)
    layers = {}
    for node in graph.nodes:
        if node.op in LAYERS:
            layers[node.name] = _layer_cost(
                graph, node, channels, gone, needed[node.name], plan.splits.get(node.name)
            )
    return Cost(
        _params(graph, channels, gone, plan.splits),
        sum(c.macs for c in layers.values()),
        sum(c.macs_with_partial for c in layers.values()),
        layers,
    )


def class_savings(graph: Graph, channels: Channels, gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """MACs that each channel class's going would save beside those ``gone``, (classes,).

    Whole channels of unsplit layers. A class that makes a layer's inputs and outputs both is
    counted for both, so the saving of several is less than their sum where one reads another.
    """
    saving = np.zeros(channels.count)
    for node, each, n_outputs, n_inputs in _products(graph, channels, gone):
        np.add.at(saving, channels.of[node.name], each * n_inputs)
        if node.attrs.get("groups", 1) == 1:  # else a group goes as a whole, its inputs with it
            np.add.at(saving, channels.of[node.inputs[0]], each * n_outputs)
    return saving


def class_macs(
    graph: Graph,
    channels: Channels,
    gone: NDArray[np.bool_],
    splits: Mapping[str, Split] | None = None,
) -> int:
    """MACs that are left when channel classes are ``gone``, bool (classes,), and layers split.

    Whole channels only, and far quicker than ``cost``: for searches.
    """
    total = 0
    for node, each, n_outputs, n_inputs in _products(graph, channels, gone):
        if (split := (splits or {}).get(node.name)) is None:
            total += each * n_inputs * n_outputs
            continue
        first, second = halves(graph, node, separable=split.separable)
        total += split.rank * (first.macs * n_inputs + second.macs * n_outputs)
    return total


def _products(
    graph: Graph, channels: Channels, gone: NDArray[np.bool_]
) -> Iterator[tuple[Node, int, int, int]]:
    """Each layer, its MACs for one filter on one input channel, and how many of both are left."""
    for node in graph.nodes:
        if node.op not in LAYERS:
            continue
        weight = graph.params[node.params["weight"]]
        each = math.prod(weight.shape[2:]) * math.prod(node.shape[1:])
        n_outputs = int((~gone[channels.of[node.name]]).sum())
        if node.attrs.get("groups", 1) > 1:
            yield node, each, n_outputs, weight.shape[1]
        else:
            yield node, each, n_outputs, int((~gone[channels.of[node.inputs[0]]]).sum())


def class_work(
    graph: Graph,
    channels: Channels,
    gone: NDArray[np.bool_],
    splits: Mapping[str, Split] | None = None,
    element: float = 0.0,
) -> float:
    """MACs that are left, and ``element`` MACs more for each number that a pool or the like writes.

    With what a machine was seen to take for writing a number (``deploy.timings``) this stands for
    time. Activations are fused into what they follow. A normalisation across channels is computed
    as a convolution of all channels with all.
    """
    work = float(class_macs(graph, channels, gone, splits))
    if element == 0:
        return work
    for node in graph.nodes:
        places, left = math.prod(node.shape[1:]), int((~gone[channels.of[node.name]]).sum())
        work += node_overhead(node, left, element) * places * left
    for name, split in (splits or {}).items():
        first, _ = halves(graph, graph[name], separable=split.separable)
        work += LAYER_SHARE * element * split.rank * first.numbers
    return work


def node_overhead(node: Node, left: int, element: float) -> float:
    """MACs that stand for the time to make one number of a node's output, beside a layer's own."""
    if node.op in ("input", "act", "flatten", "unflatten", "gather", "mask", "channel_conv"):
        return 0.0
    if node.op == "lrn":
        return _LRN_PASSES * element + (left if element else 0)
    return LAYER_SHARE * element if node.op in LAYERS else element


def _layer_cost(
    graph: Graph,
    node: Node,
    channels: Channels,
    gone: NDArray[np.bool_],
    needed: Tensor,
    split: Split | None,
) -> LayerCost:
    outputs = int((~gone[channels.of[node.name]]).sum())
    inputs = int((~gone[channels.of[node.inputs[0]]]).sum())
    weight = graph.params[node.params["weight"]]
    n_groups = node.attrs.get("groups", 1)
    # Convolution groups go as a whole, so those that stay keep all their inputs.
    per_filter = weight.shape[1] if n_groups > 1 else inputs
    per_neuron = per_filter * math.prod(weight.shape[2:])
    positions = math.prod(node.shape[1:])
    bias = outputs if "bias" in node.params else 0
    if split is not None:  # the filters everywhere, their combination where it is needed
        first, second = halves(graph, node, separable=split.separable)
        filters, rank = first.macs * inputs, split.rank
        return LayerCost(
            params=rank * (first.weights * inputs + second.weights * outputs) + bias,
            macs=rank * (filters + second.macs * outputs),
            macs_with_partial=rank * (filters + second.weights * int(needed.sum())),
        )
    return LayerCost(
        params=outputs * per_neuron + bias,
        macs=outputs * positions * per_neuron,
        macs_with_partial=int(needed.sum()) * per_neuron,
    )


def _params(
    graph: Graph, channels: Channels, gone: NDArray[np.bool_], splits: Mapping[str, Split]
) -> int:
    """Parameters left; one that several layers share counts once."""
    total, counted = 0, set()
    for node in graph.nodes:
        left = int((~gone[channels.of[node.name]]).sum())
        for role, name in node.params.items():
            if name in counted or not graph.params[name].is_floating_point():
                continue
            counted.add(name)
            if role == "weight" and node.op in LAYERS:
                weight = graph.params[name]
                grouped = node.attrs.get("groups", 1) > 1
                inputs = int((~gone[channels.of[node.inputs[0]]]).sum())
                if node.name in splits:
                    first, second = halves(graph, node, separable=splits[node.name].separable)
                    rank = splits[node.name].rank
                    total += rank * (first.weights * inputs + second.weights * left)
                else:
                    per_filter = (weight.shape[1] if grouped else inputs) * weight[0, 0].numel()
                    total += left * per_filter
            elif role in WHOLE_ROLES:
                total += graph.params[name].numel()
            else:
                total += left
    return total


def _needed_neurons(
    graph: Graph, channels: Channels, plan: Plan, gone: NDArray[np.bool_]
) -> dict[str, Tensor]:
    """Which neurons of every node have to be computed: bool (C, H, W) or (F,), backwards.

    A neuron is needed when some reader needs it. Pointwise operators need just the positions that
    are needed of them; all others need whole channels. A mask ends the need.
    """
    readers = consumers(graph)
    needed: dict[str, Tensor] = {}
    for node in reversed(graph.nodes):
        need = torch.zeros(node.shape, dtype=torch.bool)
        if node.name == graph.output:
            need[slice(None) if plan.outputs is None else list(plan.outputs)] = True
        for reader in readers[node.name]:
            need |= need_of_input(graph, reader, node, needed[reader.name])
        if node.op == "mask":
            need &= graph.params[node.params["keep"]].cpu()
        if node.name in plan.keep:
            need &= plan.keep[node.name].cpu()
        need[torch.from_numpy(gone[channels.of[node.name]])] = False
        needed[node.name] = need
    return needed


def need_of_input(graph: Graph, reader: Node, node: Node, need: Tensor) -> Tensor:
    """What ``reader`` needs of its input ``node``: bool that broadcasts to the node's shape.

    Args:
        need: which of the reader's own neurons are needed, bool in its shape.
    """
    if reader.op in POINTWISE or reader.op == "mask":
        if node.shape == need.shape:
            return need
        # A gate (C, 1, 1), or one map for all channels (1, H, W): needed where any use is.
        dims = [d for d, (a, b) in enumerate(zip(node.shape, need.shape, strict=True)) if a != b]
        return need.amax(dims, keepdim=True)
    if reader.op == "cat":
        parts = need.split([graph[name].shape[0] for name in reader.inputs])
        own = [part for name, part in zip(reader.inputs, parts, strict=True) if name == node.name]
        return torch.stack(own).any(0)
    if reader.op == "gather":
        result = torch.zeros(node.shape, dtype=torch.bool)
        for position, source in enumerate(reader.attrs["index"]):
            result[source] |= need[position]
        return result
    if reader.op in _CHANNEL_BY_CHANNEL:
        of_channel = need.reshape(node.shape[0], -1).any(1)
        return of_channel.reshape(-1, *[1] * (len(node.shape) - 1))
    return torch.ones((), dtype=torch.bool)


def is_inception(layer: str) -> bool:
    """Whether a layer belongs to one of GoogLeNet's nine inception modules, by its name."""
    return re.search(r"(^|\.)inception_?[345][a-e]\b", layer) is not None


def inception_macs(total: Cost) -> int | None:
    """MACs of the inception modules with partial removal, as the paper counts; None without any."""
    macs = [c.macs_with_partial for name, c in total.layers.items() if is_inception(name)]
    return sum(macs) if macs else None
