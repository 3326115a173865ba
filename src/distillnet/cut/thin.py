"""A layer written as two thinner ones: what the two look like, and what they cost.

A layer of M outputs, N inputs and a K_h x K_w kernel becomes ``rank`` filters and what combines
them. There are two ways; for the same cost, the second leaves out less where kernels are large:

- *thin*: filters as large as the layer's, K_h x K_w, combined at each place, 1 x 1:
  rank (N K_h K_w + M) MACs at each place (Zhang, Zou, He and Sun, 2016);
- *separable*: filters one column wide, K_h x 1, combined across columns, 1 x K_w:
  rank (N K_h + M K_w) MACs (Jaderberg, Vedaldi and Zisserman, Speeding up Convolutional Neural
  Networks with Low Rank Expansions, 2014, scheme 2).

No nonlinearity lies between the two, so together they are one layer whose weight, as a matrix, has
this rank.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillnet.graph import Graph
from distillnet.graph.operators import Node

__all__ = ["Half", "Split", "halves", "is_separable", "join", "matrix"]


@dataclass(frozen=True)
class Split:
    """How a layer is split: the channels between the two halves, and the way; see the module."""

    rank: int
    separable: bool = False


@dataclass(frozen=True)
class Half:
    """One of the two layers.

    Attributes:
        kernel: (K_h, K_w); () of a linear layer.
        places: (H, W) of its output; () of a feature vector.
        geometry: stride, padding and dilation of a convolution.
    """

    kernel: tuple[int, ...]
    places: tuple[int, ...]
    geometry: Mapping[str, Any]

    @property
    def weights(self) -> int:
        """For one input and one output channel."""
        return math.prod(self.kernel)

    @property
    def numbers(self) -> int:
        """That are written, for one output channel."""
        return math.prod(self.places)

    @property
    def macs(self) -> int:
        """For one input and one output channel."""
        return self.weights * self.numbers


def halves(graph: Graph, layer: Node, *, separable: bool) -> tuple[Half, Half]:
    """The filters and the combination of a layer that is split."""
    kernel, places = _kernel(graph, layer), layer.shape[1:]
    if layer.op != "conv":
        return Half((), (), {}), Half((), (), {})
    neutral = {"stride": 1, "padding": 0, "dilation": 1}
    if not separable:
        own = {name: layer.attrs[name] for name in neutral}
        same = {name: (value, value) for name, value in neutral.items()}
        return Half(kernel, places, own), Half((1, 1), places, same)
    rows = {name: (layer.attrs[name][0], value) for name, value in neutral.items()}
    columns = {name: (value, layer.attrs[name][1]) for name, value in neutral.items()}
    width = graph[layer.inputs[0]].shape[2]  # columns are as many as there were
    return (
        Half((kernel[0], 1), (places[0], width), rows),
        Half((1, kernel[1]), places, columns),
    )


def is_separable(graph: Graph, layer: Node) -> bool:
    """Whether the layer's kernel has rows and columns to separate."""
    kernel = _kernel(graph, layer)
    return len(kernel) == 2 and min(kernel) > 1


def matrix(weight: Tensor, *, separable: bool) -> Tensor:
    """A weight (M, N, K_h, K_w) as the matrix whose rank counts: (N K_h K_w, M), (N K_h, K_w M)."""
    if separable:
        return weight.permute(1, 2, 3, 0).flatten(2).flatten(0, 1)
    return weight.flatten(1).T


def join(
    filters: Tensor, combination: Tensor, like: torch.Size, *, separable: bool
) -> tuple[Tensor, Tensor]:
    """Weights of the two halves, of a layer with a weight shaped ``like``.

    Args:
        filters: (rank, N K_h K_w), or (rank, N K_h) where separable.
        combination: (rank, M), or (rank, K_w M); ``filters.T @ combination`` is the ``matrix``.
    """
    rank, (m, n, *kernel) = len(filters), like
    if separable:
        second = combination.reshape(rank, kernel[1], m).permute(2, 0, 1)
        return filters.reshape(rank, n, kernel[0], 1), second.unsqueeze(2)
    return filters.reshape(rank, n, *kernel), combination.T.reshape(m, rank, *[1] * len(kernel))


def _kernel(graph: Graph, layer: Node) -> tuple[int, ...]:
    return tuple(graph.params[layer.params["weight"]].shape[2:])
