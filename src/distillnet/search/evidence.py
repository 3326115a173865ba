"""What a search must know of the original: how inputs vary together, and what the mission feels.

One forward and one backward pass per image, at a few places per layer. The gradient is that of the
mission's centred scores (each score less their mean, which is all that a decision depends on) under
a random +-1 projection: its square is, in the mean, the sum of the squares over the scores, so one
backward pass does for all of them and no labels are needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.channels import Channels
from distillnet.graph.operators import Node
from distillnet.refit.samples import choose_places, outputs_at, patches_at, rows_per_image
from distillnet.refit.teacher import refittable

__all__ = [
    "BATCH",
    "MOST_COLUMNS",
    "Evidence",
    "View",
    "columns_of",
    "forward_backward",
    "measure_evidence",
]

_PLACES, _MOST_PLACES = 20, 40  # per image and layer
_ROWS = 10_000  # up to which a layer has more than the least
BATCH = 16  # images at once
# Columns of a view up to which all covariances are kept: 4700^2 float64 are 177 MB. It holds the
# 512 channels of a 3x3 convolution. Above it, channels are taken as independent.
MOST_COLUMNS = 4700


@dataclass(frozen=True)
class View:
    """A value as layers of one kernel, stride and padding see it.

    Attributes:
        source: the node that is read.
        layers: those that read it.
        covariance: of the patches (D, D), D = C k k; of independent channels (C, k k, k k).
            Float64.
    """

    source: str
    layers: tuple[str, ...]
    covariance: Tensor


@dataclass(frozen=True)
class Evidence:
    """Views of the original network, and what the mission's scores feel of each layer.

    Attributes:
        needs: by layer (M, M): E[sum over places g g^T], g the gradient of the scores by the
            layer's output at a place. An error e at every place, independent from place to place,
            changes the centred scores by e^T need e in mean square.
        spreads: by layer (M, M): covariance of its outputs from place to place and image to image.
        gradients: by site (C, H, W): mean squared gradient of each neuron.
    """

    views: tuple[View, ...]
    needs: Mapping[str, Tensor]
    spreads: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


def measure_evidence(
    graph: Graph,
    channels: Channels,
    mission: Mission,
    x_nchw: Tensor,
    seed: int = 0,
) -> Evidence:
    """One forward and one backward pass over the images; see the module's text."""
    layers = refittable(graph)
    members: dict[tuple[object, ...], list[Node]] = {}
    for layer in layers:
        members.setdefault(_view_key(graph, layer), []).append(layer)
    sums = {key: _Covariance(graph, group[0]) for key, group in members.items()}
    places = {
        layer.name: choose_places(
            layer.shape, len(x_nchw), _places(graph, layer, len(x_nchw)), seed
        ).to(x_nchw.device)
        for layer in layers
    }
    like = next(iter(graph.params.values()))
    needs = {layer.name: like.new_zeros(*[layer.shape[0]] * 2) for layer in layers}
    spreads = {layer.name: _Spread(needs[layer.name]) for layer in layers}
    gradients = {site: like.new_zeros(graph[site].shape) for site in channels.sites}
    generator = torch.Generator().manual_seed(seed)
    read = {layer.inputs[0] for layer in layers}
    start = 0
    for part in x_nchw.split(BATCH):
        values, slopes = forward_backward(graph, mission, part, generator, read, channels.sites)
        with torch.no_grad():
            for key, group in members.items():
                at = places[group[0].name][start : start + len(part)]
                sums[key].add(values[group[0].inputs[0]], at)
            for layer in layers:
                at = places[layer.name][start : start + len(part)]
                g = outputs_at(slopes[layer.name], at)
                # The sampled places stand for all.
                weight = math.prod(layer.shape[1:]) / at.shape[1] / len(x_nchw)
                needs[layer.name].addmm_(g.T, g, alpha=weight)
                spreads[layer.name].add(outputs_at(values[layer.name], at))
            for site in channels.sites:
                gradients[site] += slopes[site].square().sum(0) / len(x_nchw)
        start += len(part)
    views = tuple(
        View(group[0].inputs[0], tuple(layer.name for layer in group), sums[key].value())
        for key, group in members.items()
    )
    covariances = {name: spread.value() for name, spread in spreads.items()}
    return Evidence(views, needs, covariances, gradients)


def _places(graph: Graph, layer: Node, n_images: int) -> int:
    """How many of each image: where images are few, more of them for wide layers."""
    columns = graph.params[layer.params["weight"]][0].numel()
    wanted = min(rows_per_image(columns, n_images), _ROWS // n_images, _MOST_PLACES)
    return max(_PLACES, wanted)


def _view_key(graph: Graph, layer: Node) -> tuple[object, ...]:
    kernel = tuple(graph.params[layer.params["weight"]].shape[2:])
    geometry = [layer.attrs.get(name) for name in ("stride", "padding", "dilation")]
    return (layer.inputs[0], kernel, *map(str, geometry))


def forward_backward(
    graph: Graph,
    mission: Mission,
    x_nchw: Tensor,
    generator: torch.Generator,
    read: set[str],
    sites: tuple[str, ...],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values of what layers read; gradients by the outputs of layers and sites."""
    felt = {layer.name for layer in refittable(graph)} | set(sites)
    values: dict[str, Tensor] = {}

    def observe(name: str, y: Tensor) -> None:
        if name in felt or name in read:
            values[name] = y

    x = fast_layout(x_nchw).detach().requires_grad_()
    values[graph.input.name] = x
    with torch.enable_grad():
        scores = run(graph, {graph.input.name: x}, observe=observe)[graph.output]
        centred = scores[:, list(mission.indices)]
        centred = centred - centred.mean(1, keepdim=True)
        sign = 2.0 * torch.randint(0, 2, centred.shape, generator=generator) - 1
        names = [name for name in values if name in felt]
        slopes = torch.autograd.grad(
            (centred * sign.to(centred.device)).sum(),
            [values[name] for name in names],
            allow_unused=True,
        )
    found = {
        name: torch.zeros_like(values[name]) if slope is None else slope
        for name, slope in zip(names, slopes, strict=True)
    }
    return {name: value.detach() for name, value in values.items()}, found


class _Spread:
    """Covariance of rows (R, M), summed up batch by batch."""

    def __init__(self, like_mm: Tensor) -> None:
        self.square, self.total = torch.zeros_like(like_mm), like_mm.new_zeros(len(like_mm))
        self.count = 0

    def add(self, rows: Tensor) -> None:
        self.square.addmm_(rows.T, rows)
        self.total += rows.sum(0)
        self.count += len(rows)

    def value(self) -> Tensor:
        mean = self.total / self.count
        return self.square / self.count - torch.outer(mean, mean)


class _Covariance:
    """Of patches, summed up batch by batch."""

    def __init__(self, graph: Graph, layer: Node) -> None:
        weight = graph.params[layer.params["weight"]]
        self.layer, self.kernel = layer, tuple(weight.shape[2:])
        self.columns = math.prod(weight.shape[1:])
        # A flattened map's channels are not known here; each feature then stands for itself.
        self.per_channel = math.prod(self.kernel)
        self.dense = self.columns <= MOST_COLUMNS
        shape = (
            (self.columns, self.columns)
            if self.dense
            else (self.columns // self.per_channel, self.per_channel, self.per_channel)
        )
        # In float64: the mean is taken off at last, and where little varies (white pages, grey
        # images in three channels, fewer rows than columns) rounding would be all that is left.
        self.square = weight.new_zeros(shape, dtype=torch.float64)
        self.total = weight.new_zeros(self.columns, dtype=torch.float64)
        self.count = 0

    def add(self, x: Tensor, places_nr: Tensor) -> None:
        rows = patches_at(self.layer, self.kernel, x, places_nr).double()
        if self.dense:
            self.square.addmm_(rows.T, rows)
        else:
            blocks = rows.reshape(len(rows), -1, self.per_channel)
            self.square += torch.einsum("rca,rcb->cab", blocks, blocks)
        self.total += rows.sum(0)
        self.count += len(rows)

    def value(self) -> Tensor:
        mean = self.total / self.count
        if self.dense:
            return self.square / self.count - torch.outer(mean, mean)
        parts = mean.reshape(-1, self.per_channel)
        return self.square / self.count - parts[:, :, None] * parts[:, None, :]


def columns_of(classes: np.ndarray, columns: int) -> np.ndarray:
    """The channel class of each column of a view, from those of the channels it reads."""
    return np.repeat(classes, columns // len(classes))
