"""The slides' local and global changes, applied to any network that was captured.

A local change alters the dimensions of a layer and of those that read it, and so the number of
parameters, which is what data-parallel training has to communicate. A global one alters the size of
maps, and with it the computation of all that follows, but no parameters where the network ends in a
mean over the map.

A changed network is a graph whose weights have the new shapes and no values: they lie on PyTorch's
meta device. Every shape in it comes from running the operators there, not from formulas.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse, groups
from distillnet.graph.operators import APPLY, LAYERS, WHOLE_ROLES, Node

__all__ = ["Change", "apply_change"]

Kind = Literal["none", "local", "global"]
_POOLS = frozenset({"max_pool", "avg_pool"})
# A position in the original channels, and masks: what only networks have that were cut already.
_OF_CUT_NETWORKS = frozenset({"positions", "keep"})
_PER_CHANNEL_ATTRS = ("channels",)  # attributes that repeat how many channels a node reads


@dataclass(frozen=True)
class Change:
    """What to change of a network; factors of 1 and names that are absent change nothing.

    Attributes:
        title: what a table calls it.
        input_channels: factor of the channels of the images.
        input_side: factor of their height and width.
        filters: by layer, factor of its filters, and of those of layers that are tied to it.
        kernel_side: by convolution, factor of its kernel's height and width; its padding grows
            along, and a kernel that becomes even makes the map a pixel smaller, unless that meets
            another map.
        outputs: factor of the classes.
        removed: pools to leave out.
        stride: by convolution or pool, its new stride.
    """

    title: str
    input_channels: float = 1.0
    input_side: float = 1.0
    filters: Mapping[str, float] = field(default_factory=dict)
    kernel_side: Mapping[str, float] = field(default_factory=dict)
    outputs: float = 1.0
    removed: frozenset[str] = frozenset()
    stride: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Global where the size of maps changes for all that follows, as the slides define it."""
        if self.input_side != 1 or self.removed or self.stride:
            return "global"
        changed = self.input_channels != 1 or self.outputs != 1 or self.filters or self.kernel_side
        return "local" if changed else "none"


def apply_change(graph: Graph, change: Change) -> Graph:
    """The changed network, without values of weights.

    Layers and pools may be named as ``inspect`` does, or by what stands before the colon.

    Raises:
        InputError: no layer or pool is called so, or the changed network cannot be computed: a
            kernel larger than its map, a channel order that no factor keeps, layers that are tied.

    >>> from torch import nn
    >>> from distillnet.graph.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
    ...                     nn.Linear(4 * 16, 2))
    >>> wider = apply_change(capture(net, (8, 8)), Change("2x", filters={"2": 2.0}))
    >>> [node.shape for node in wider.nodes if node.op in ("conv", "linear")]
    [(8, 6, 6), (8, 4, 4), (2,)]
    """
    filters = _filter_factors(graph, change)
    kernels = {_named(graph, n, {"conv"}): f for n, f in change.kernel_side.items()}
    strides = {_named(graph, n, {"conv", *_POOLS}): s for n, s in change.stride.items()}
    removed = {_named(graph, name, _POOLS) for name in change.removed}
    rebuilt = partial(_Rebuilding, graph, change, filters, kernels, strides, removed)
    try:
        return rebuilt().build()
    except InputError:
        if not kernels:
            raise
        return rebuilt(keep_maps=True).build()  # branches that meet again want maps of one size


def _named(graph: Graph, name: str, kinds: Collection[str]) -> str:
    """The node that a user means; "pool3" is "pool3:max_pool"."""
    fitting = [node.name for node in graph.nodes if node.op in kinds]
    for found in fitting:
        if name in (found, found.partition(":")[0]):
            return found
    raise InputError(
        f"found no {' or '.join(sorted(kinds))} {name!r} in this network, expected one of"
        f" {', '.join(fitting[:12]) or 'none'}{', ...' if len(fitting) > 12 else ''}"
    )


def _filter_factors(graph: Graph, change: Change) -> dict[str, float]:
    """By layer, by what its filters are multiplied, those tied to one with it."""
    channels = analyse(graph)
    tied = {name: group.layers for group in groups(graph, channels) for name in group.layers}
    scores = set(channels.outputs.tolist())
    making = {name for name in tied if scores & set(channels.of[name].tolist())}
    factors: dict[str, float] = dict.fromkeys(making, change.outputs)
    for name, factor in change.filters.items():
        layer = _named(graph, name, LAYERS)
        if layer in making:
            raise InputError(
                f"found filters of {layer!r}, which makes the network's scores; change the number"
                " of classes instead"
            )
        factors.update(dict.fromkeys(tied[layer], factor))
    return factors


class _Rebuilding:
    """One walk through a graph, that computes every node's new shape from those before it."""

    def __init__(
        self,
        graph: Graph,
        change: Change,
        filters: Mapping[str, float],
        kernels: Mapping[str, float],
        strides: Mapping[str, int],
        removed: Collection[str],
        keep_maps: bool = False,
    ) -> None:
        self.graph, self.change, self.keep_maps = graph, change, keep_maps
        self.filters, self.kernels, self.strides = filters, kernels, strides
        self.removed = removed
        self.nodes: list[Node] = []
        self.values: dict[str, Tensor] = {}
        self.params: dict[str, Tensor] = {}
        self.stands_for: dict[str, str] = {}  # a node that is gone -> the one it read

    def build(self) -> Graph:
        for node in self.graph.nodes:
            if node.name in self.removed:
                self.stands_for[node.name] = self._now(node.inputs[0])
                continue
            node = replace(node, inputs=tuple(self._now(name) for name in node.inputs))
            if self.keep_maps and node.name in self.kernels:
                pixel = self._odd_pixel(node)
                self._add(pixel)
                node = replace(node, inputs=(pixel.name,))
            self._add(self._resized(node))
        return Graph(tuple(self.nodes), self.params, self._now(self.graph.output))

    def _add(self, node: Node) -> None:
        self.values[node.name] = self._computed(node)
        self.nodes.append(replace(node, shape=tuple(self.values[node.name].shape[1:])))

    def _odd_pixel(self, conv: Node) -> Node:
        """What pads by the one pixel that a kernel which became even lacks."""
        sides = self.graph.params[conv.params["weight"]].shape[2:]
        bottom, right = (
            dilation * (_larger(side, self.kernels[conv.name]) - side) % 2
            for dilation, side in zip(conv.attrs["dilation"], sides, strict=True)
        )
        attrs = {"pad": (0, right, 0, bottom), "value": 0.0}
        return Node(f"{conv.name}:odd_pixel", "pad", conv.inputs, conv.shape, attrs)

    def _now(self, name: str) -> str:
        return self.stands_for.get(name, name)

    def _computed(self, node: Node) -> Tensor:
        if node.op == "input":
            channels, height, width = node.shape
            sides = (round(self.change.input_side * side) for side in (height, width))
            return _empty(1, round(self.change.input_channels * channels), *sides)
        params = {role: self.params[name] for role, name in node.params.items()}
        try:
            return APPLY[node.op](node, params, *(self.values[name] for name in node.inputs))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.change.title!r} makes {node.name!r} impossible to compute:"
                f" {str(error).splitlines()[0]}; choose another layer or factor"
            ) from error

    def _resized(self, node: Node) -> Node:
        """The node with attributes and parameters that fit its inputs and the change."""
        if node.op == "input":
            return node
        if _OF_CUT_NETWORKS & set(node.params):
            raise InputError("found a network that was cut already, expected an original one")
        if node.op in LAYERS:
            return self._layer(node)
        if node.name in self.strides:
            node = _with_attrs(node, stride=(self.strides[node.name],) * 2)
        channels = self.values[node.inputs[0]].shape[1]
        for attr in _PER_CHANNEL_ATTRS:
            if attr in node.attrs:
                node = _with_attrs(node, **{attr: channels})
        if node.op == "gather":
            node = _with_attrs(node, index=self._index(node, channels))
        if node.op == "sample" and self._map(node) != self.graph[self._before(node)].shape[1:]:
            raise InputError(
                f"{self.change.title!r} changes the map that {node.name!r} scales to fixed pixels;"
                " there is no telling what it would be scaled to"
            )
        for role, name in node.params.items():
            old = self.graph.params[name]
            per_channel = role not in WHOLE_ROLES and old.ndim == 1
            self._keep(name, _empty(channels) if per_channel else _empty(*old.shape))
        return node

    def _before(self, node: Node) -> str:
        """The input of a node in the original graph."""
        return self.graph[node.name].inputs[0]

    def _map(self, node: Node) -> tuple[int, ...]:
        return tuple(self.values[node.inputs[0]].shape[2:])

    def _layer(self, node: Node) -> Node:
        weight = self.graph.params[node.params["weight"]]
        outputs = max(1, round(self.filters.get(node.name, 1.0) * weight.shape[0]))
        inputs = self.values[node.inputs[0]].shape[1]
        sides = tuple(weight.shape[2:])
        if node.op == "conv":
            if node.attrs["groups"] == self.graph[self._before(node)].shape[0] > 1:  # depthwise
                node = _with_attrs(node, groups=inputs)
            if node.name in self.strides:
                node = _with_attrs(node, stride=(self.strides[node.name],) * 2)
            if node.name in self.kernels:
                larger = tuple(_larger(side, self.kernels[node.name]) for side in sides)
                padding = tuple(
                    max(0, pad + dilation * (new - old) // 2)
                    for pad, dilation, new, old in zip(
                        node.attrs["padding"], node.attrs["dilation"], larger, sides, strict=True
                    )
                )
                node, sides = _with_attrs(node, padding=padding), larger
            inputs //= node.attrs["groups"]
        self._keep(node.params["weight"], _empty(outputs, inputs, *sides))
        if "bias" in node.params:
            self._keep(node.params["bias"], _empty(outputs))
        return node

    def _keep(self, name: str, tensor: Tensor) -> None:
        known = self.params.setdefault(name, tensor)
        if known.shape != tensor.shape:
            raise InputError(
                f"{self.change.title!r} wants {name!r}, which several layers share, in two shapes:"
                f" {tuple(known.shape)} and {tuple(tensor.shape)}"
            )

    def _index(self, node: Node, channels: int) -> tuple[int, ...]:
        """A gather's channels where each has become several that lie together."""
        before = self.graph[self._before(node)].shape[0]
        times, rest = divmod(channels, before)
        if rest or times == 0:
            raise InputError(
                f"{self.change.title!r} gives {node.name!r} {channels} channels in place of"
                f" {before}, of which it picks some; choose a whole factor for it"
            )
        return tuple(times * i + j for i in node.attrs["index"] for j in range(times))


def _larger(side: int, factor: float) -> int:
    return max(1, round(factor * side))


def _with_attrs(node: Node, **attrs: Any) -> Node:
    return replace(node, attrs={**node.attrs, **attrs})


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")
