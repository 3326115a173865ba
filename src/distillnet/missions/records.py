"""What a pass over the images writes down of a network at a few places of each image.

A *sample* is a place of an image, told in shares of its height and width, so that all layers see
the same one. There is recorded

- ``patch``: what layers of one kernel, stride and padding read to answer there, (C k k,);
- ``output``: what a layer answers, (M,), of those that read the image itself: no pixel is kept;
- ``value``: the value of a node that cannot be computed at one place from what is recorded, a
  pool's for one, (C,) or (F,).

With the network's weights these tell what every layer answers at the sample, and what would come of
other weights (``following``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.graph import Graph, Node
from distillnet.graph.operators import LAYERS, POINTWISE
from distillnet.refit.samples import outputs_at, patches_at
from distillnet.refit.teacher import refittable

__all__ = [
    "AT_ONE_PLACE",
    "Record",
    "is_aligned",
    "is_told",
    "nodes_of_image",
    "places_in",
    "record_at",
    "records_of",
]

# Operators that tell their value at a place from their inputs' there.
AT_ONE_PLACE = POINTWISE | {
    *("cat", "gather", "lrn", "layer_norm", "channel_conv", "channel_max"),
}


@dataclass(frozen=True)
class Record:
    """One of the things recorded.

    Attributes:
        kind: ``patch``, ``output`` or ``value``.
        node: the first of the ``layers`` that read a patch, else the node itself.
        source: the node whose value is looked at.
        layers: those that read this patch, or the one whose output it is.
        width: how many numbers.
    """

    kind: str
    node: str
    source: str
    layers: tuple[str, ...]
    width: int

    @property
    def name(self) -> str:
        """In files."""
        return f"{self.kind}/{self.node}"


def records_of(graph: Graph) -> tuple[Record, ...]:
    """All that has to be recorded of a network, in execution order."""
    layers = refittable(graph)
    of_image = nodes_of_image(graph)
    groups: dict[tuple[object, ...], list[Node]] = {}
    records = []
    for layer in layers:
        if layer.inputs[0] in of_image:
            name = layer.name
            records.append(Record("output", name, name, (name,), layer.shape[0]))
        else:
            groups.setdefault(_sight(graph, layer), []).append(layer)
    known = {layer.name for layer in layers}
    for group in groups.values():
        names, source = tuple(layer.name for layer in group), group[0].inputs[0]
        width = graph.params[group[0].params["weight"]][0].numel()
        records.append(Record("patch", names[0], source, names, width))
        if is_aligned(graph, group[0]):
            known.add(source)
    for node in graph.nodes:
        if node.name not in known | of_image and not (
            is_told(graph, node) and of_image.isdisjoint(node.inputs)
        ):
            records.append(Record("value", node.name, node.name, (), node.shape[0]))
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    return tuple(sorted(records, key=lambda record: order[record.node]))


def nodes_of_image(graph: Graph) -> set[str]:
    """The nodes before any layer: they show the image."""
    found = {graph.input.name}
    for node in graph.nodes[1:]:
        if node.op not in LAYERS and found.issuperset(node.inputs):
            found.add(node.name)
    return found


def _sight(graph: Graph, layer: Node) -> tuple[object, ...]:
    kernel = tuple(graph.params[layer.params["weight"]].shape[2:])
    geometry = (layer.attrs.get(name) for name in ("stride", "padding", "dilation"))
    return (layer.inputs[0], kernel, *map(str, geometry))


def is_told(graph: Graph, node: Node) -> bool:
    """Whether a node's value at a sample follows from its inputs' there."""
    maps = {graph[name].shape[1:] for name in node.inputs if math.prod(graph[name].shape[1:]) > 1}
    if node.op in ("flatten", "unflatten"):
        return not maps
    return node.op in AT_ONE_PLACE and len(maps) <= 1


def is_aligned(graph: Graph, layer: Node) -> bool:
    """Whether the middle of a layer's patch is the same place of its input's map."""
    source = graph[layer.inputs[0]]
    if layer.op == "linear":
        return True
    kernel = graph.params[layer.params["weight"]].shape[2:]
    attrs = layer.attrs
    return source.shape[1:] == layer.shape[1:] and all(
        side % 2 and step == 1 and pad == gap * (side // 2)
        for side, step, pad, gap in zip(
            kernel, attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
        )
    )


def places_in(shape: Sequence[int], at_np2: Tensor) -> Tensor:
    """Flat positions (N, P) in a map of ``shape`` (C, H, W) of places told in shares of 2^31.

    >>> places_in((8, 4, 4), torch.tensor([[[0, 0], [2**31 - 1, 2**30]]]))
    tensor([[ 0, 14]])
    """
    if len(shape) == 1:
        return torch.zeros(at_np2.shape[:2], dtype=torch.int64, device=at_np2.device)
    height, width = shape[1:]
    return ((at_np2[..., 0] * height) >> 31) * width + ((at_np2[..., 1] * width) >> 31)


def record_at(graph: Graph, record: Record, value: Tensor, at_np2: Tensor) -> Tensor:
    """Rows (N P, width) of a record, of the value (N, C, H, W) or (N, F) of its source."""
    count = at_np2.shape[1]
    if record.kind == "patch":
        layer = graph[record.node]
        kernel = tuple(graph.params[layer.params["weight"]].shape[2:])
        if layer.op == "linear":
            return value.repeat_interleave(count, 0)
        return patches_at(layer, kernel, value, places_in(layer.shape, at_np2))
    if value.ndim == 2:
        return value.repeat_interleave(count, 0)
    return outputs_at(value, places_in(tuple(value.shape[1:]), at_np2))
