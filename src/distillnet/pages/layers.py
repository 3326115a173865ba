"""What each layer of the original costs, and what of it is left.

The original's costs are counted from its graph. What is left is told by the tensors of
``model.pt2``, which keep the names of the original's layers (``graph.GraphModule``), so that it is
the network that is deployed, and not what was planned.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distillnet.cut.cost import cost
from distillnet.cut.thin import halves
from distillnet.graph import Graph, consumers
from distillnet.graph.operators import LAYERS, POINTWISE, Node
from distillnet.models.programs import load_program
from distillnet.pages.subject import Bench, Original, Subject

__all__ = ["Layer", "layer_rows"]


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer before and after.

    Attributes:
        kind: such as "3×3 depthwise"; of a convolution that is nothing more, its kernel.
        channels: filters before and after.
        split: how it is written as two layers, "thin" or "separable" (``cut.thin``); "" where it
            is not.
        rank: channels between the two; None of one that is not split.
        ms: in ONNX Runtime before and after, where ``bench`` has measured layers.
        site: figures of where its neurons are masked, as ``result.json`` has them; None where it
            has no such place of its own.
    """

    name: str
    kind: str
    channels: tuple[int, int]
    macs: tuple[int, int]
    params: tuple[int, int]
    split: str
    rank: int | None
    ms: tuple[float, float] | None
    site: Mapping[str, Any] | None


def layer_rows(subject: Subject) -> tuple[Layer, ...]:
    """Every layer in the order of execution; empty where they cannot be told apart."""
    original = subject.original
    if original is None:
        return ()
    module = load_program(subject.run.directory / "model.pt2").module
    left = dict(module.named_parameters())
    before = cost(original.graph, original.channels)
    sites = {site["site"]: site for site in subject.result["layers"]}
    rows = []
    for node in original.graph.nodes:
        if node.op not in LAYERS:
            continue
        made = _left_of(original, node, left)
        if made is None:
            return ()
        weight = original.graph.params[node.params["weight"]]
        rows.append(
            Layer(
                name=node.name,
                kind=_kind(node, weight),
                channels=(node.shape[0], made.channels),
                macs=(before.layers[node.name].macs, made.macs),
                params=(before.layers[node.name].params, made.params),
                split=made.split,
                rank=made.rank,
                ms=_times(subject.bench, _attribute(node)),
                site=sites.get(_site_of(original.graph, node, sites) or ""),
            )
        )
    return tuple(rows)


@dataclass(frozen=True)
class _Left:
    channels: int
    macs: int
    params: int
    split: str = ""
    rank: int | None = None


def _attribute(node: Node) -> str:
    """What a saved programme calls a layer's weight, but for its ending."""
    return re.sub(r"\W", "_", node.params["weight"])


def _left_of(original: Original, node: Node, left: Mapping[str, Tensor]) -> _Left | None:
    """What the distilled network has of a layer; None where nothing is called like it."""
    name, small = _attribute(node), original.smaller[node.name]
    bias = left.get(re.sub(r"\W", "_", node.params["bias"])) if "bias" in node.params else None
    n_bias = 0 if bias is None else bias.numel()
    places = math.prod(small.shape[1:])
    weight = left.get(name)
    wanted = original.graph.params[node.params["weight"]].ndim
    if weight is not None and weight.ndim == wanted:
        return _Left(len(weight), weight.numel() * places, weight.numel() + n_bias)
    basis, combination = left.get(f"{name}_basis"), left.get(f"{name}_combination")
    if basis is None or combination is None or not basis.ndim == combination.ndim == wanted:
        return None
    separable = combination.ndim == 4 and combination.shape[3] > 1
    first, second = halves(original.smaller, small, separable=separable)
    macs = basis.numel() * first.numbers + combination.numel() * second.numbers
    params = basis.numel() + combination.numel() + n_bias
    way = "separable" if separable else "thin"
    return _Left(len(combination), macs, params, way, len(basis))


def _kind(node: Node, weight: Tensor) -> str:
    if node.op == "linear":
        return "linear"
    kernel = "×".join(map(str, weight.shape[2:]))
    groups = node.attrs.get("groups", 1)
    if groups > 1:
        depthwise = groups == weight.shape[0] == groups * weight.shape[1]
        return f"{kernel} {'depthwise' if depthwise else 'grouped'}"
    return kernel


def _site_of(graph: Graph, node: Node, sites: Mapping[str, Any]) -> str | None:
    """Where a layer's neurons are masked, if what lies between works on each by itself."""
    readers = consumers(graph)
    name = node.name
    while name not in sites:
        after = readers[name]
        if len(after) != 1 or after[0].op not in POINTWISE or len(after[0].inputs) != 1:
            return None
        name = after[0].name
    return name


def _times(bench: Bench | None, name: str) -> tuple[float, float] | None:
    """ms before and after; halves of a split layer count together."""
    if bench is None or bench.layers is None:
        return None
    plain = re.sub(r"_weight$", "", name)
    own = {plain, name, f"{name}_basis", f"{name}_combination"}
    before = [time.ms for time in bench.layers.original if time.name in own]
    after = [time.ms for time in bench.layers.distilled if time.name in own]
    return (sum(before), sum(after)) if before and after else None
