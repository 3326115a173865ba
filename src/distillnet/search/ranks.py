"""Which layers to write as two thinner ones: a basis of few channels, and what combines them.

A layer of M outputs whose values, over the mission's images, lie near a subspace of r dimensions
needs r filters and an M x r combination: r (D + M) multiplications at each place instead of M D (D
inputs times kernel). How near, as far as the mission feels it, is told by eigenvalues
(``basis.output_basis``): the damage of rank r is the sum of those beyond the r largest, in mean
squared change of the mission's centred scores, the surgeon's unit. Few classes need few dimensions,
though each channel has a share in them: that is why this saves what channels alone cannot. The
filters themselves are fitted by ``compensation``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillnet.basis import output_basis
from distillnet.channels import Channels
from distillnet.graph import Graph
from distillnet.search.evidence import Evidence
from distillnet.teacher import refittable

__all__ = ["Spectrum", "choose_ranks", "spectra"]

_WORTH = 0.9  # a layer is split where this share of its cost, or less, is left


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a layer's outputs as the mission feels them, (M,), the largest first."""

    layer: str
    values: NDArray[np.float64]


def spectra(graph: Graph, channels: Channels, evidence: Evidence) -> tuple[Spectrum, ...]:
    """The spectrum of each layer that can be fitted, but of those that make the scores."""
    result = []
    for layer in refittable(graph):
        if not np.isin(channels.of[layer.name], channels.outputs).any():
            values, _, _ = output_basis(evidence.needs[layer.name], evidence.spreads[layer.name])
            result.append(Spectrum(layer.name, values.cpu().numpy()))
    return tuple(result)


def choose_ranks(
    graph: Graph,
    channels: Channels,
    known: Sequence[Spectrum],
    gone: NDArray[np.bool_],
    price: float,
    costs: Mapping[str, float],
    multiple: int = 1,
    element: float = 0.0,
) -> dict[str, int]:
    """The rank of each layer that is worth splitting: least damage + price x cost.

    Args:
        gone: channel classes that are removed, bool (classes,).
        price: in squared score units.
        costs: by layer, of one filter on one input channel.
        multiple: ranks are rounded up to one.
        element: cost of writing a number between the two layers.
    """
    ranks = {}
    for spectrum in known:
        layer = graph[spectrum.layer]
        kernel = math.prod(graph.params[layer.params["weight"]].shape[2:])
        n_out = int((~gone[channels.of[layer.name]]).sum())
        n_in = int((~gone[channels.of[layer.inputs[0]]]).sum())
        values = spectrum.values[:n_out]
        # damage[r] of rank r, for r = 0 ... n_out
        damage = np.append(np.cumsum(values[::-1])[::-1], 0.0)
        rank = np.arange(n_out + 1)
        between = element * math.prod(layer.shape[1:])
        cost = rank * (costs[layer.name] * (n_in + n_out / kernel) + between)
        whole = costs[layer.name] * n_out * n_in
        best = max(1, int(np.argmin(damage + price * cost)))
        best = -(-best // multiple) * multiple
        # Left whole, the layer is not damaged at all.
        worth = min(_WORTH * whole, whole - damage[min(best, n_out)] / price)
        if best < n_out and cost[best] <= worth:
            ranks[layer.name] = best
    return ranks
