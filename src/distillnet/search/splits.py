"""Which layers to write as two thinner ones, and how: see ``thin`` for the two ways.

A layer of M outputs whose values, over the mission's images, lie near a subspace of r dimensions
needs r filters and their combination. How near, as far as the mission feels it, is told by
eigenvalues (``basis.output_values``): the damage of rank r is the sum of those beyond the r
largest, in mean squared change of the mission's centred scores, the surgeon's unit. Few classes
need few dimensions, though each channel has a share in them: that is why this saves what channels
alone cannot.

Of filters one column wide (``basis.column_filters``) the damage is what the best combination of the
first r leaves. With the inputs' covariance S, all filters F, what they see F S F^T = T T^T and the
need N, a row a of T^-1 F S W^T adds a N a^T to what the rows before it hold, a filter the sum over
its columns: one Cholesky factor tells the damages of all ranks.

The filters themselves are fitted by ``compensation``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.cost import LAYER_SHARE
from distillnet.cut.thin import Split, halves, is_separable, matrix
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.operators import Node
from distillnet.refit.basis import column_covariance, column_filters, factor, output_values
from distillnet.refit.teacher import refittable
from distillnet.search.evidence import Evidence

__all__ = ["Spectrum", "choose_splits", "spectra"]

_WORTH = 0.9  # a layer is split where this share of its cost, or less, is left
_SILENT = 1e-5  # of the mean variance: inputs that never change
_EXACT = 1e-12  # the same, of what has this ridge already


@dataclass(frozen=True)
class Spectrum:
    """What each filter of a layer adds, as the mission feels it, (R,), in the order of adding."""

    layer: str
    values: NDArray[np.float64]
    separable: bool = False


def spectra(graph: Graph, channels: Channels, evidence: Evidence) -> tuple[Spectrum, ...]:
    """The spectra of each layer that can be fitted, but of those that make the scores."""
    covariances = {name: view.covariance for view in evidence.views for name in view.layers}
    result = []
    for layer in refittable(graph):
        if np.isin(channels.of[layer.name], channels.outputs).any():
            continue
        need = evidence.needs[layer.name]
        values = output_values(need, evidence.spreads[layer.name])
        result.append(Spectrum(layer.name, values.cpu().numpy()))
        if is_separable(graph, layer) and covariances[layer.name].ndim == 2:
            values = _of_columns(graph, layer, need, covariances[layer.name])
            result.append(Spectrum(layer.name, values.cpu().numpy(), separable=True))
    return tuple(result)


def _of_columns(graph: Graph, layer: Node, need_mm: Tensor, covariance_dd: Tensor) -> Tensor:
    """What each filter one column wide adds to those before it, (N K_h,)."""
    weight = graph.params[layer.params["weight"]].double()
    _, n, high, wide = weight.shape
    size = n * high
    # S by rows and columns of the kernel: (N K_h, K_w, N K_h, K_w).
    seen = covariance_dd.clone()
    seen.diagonal().add_(_SILENT * seen.diagonal().mean().clamp_min(1e-30))
    column = column_covariance(seen, wide)
    seen = seen.reshape(size, wide, size, wide)
    filters, _ = column_filters(matrix(weight, separable=True), need_mm, column)
    filtered = (filters @ seen.flatten(1)).reshape(size * wide, size * wide)  # F S
    both = filters @ filtered.reshape(size * wide, size, wide).transpose(0, 1).flatten(1)
    both = both.reshape(size, size * wide, wide).transpose(0, 1).reshape(size * wide, -1)
    held = filtered @ weight.flatten(1).T
    added = torch.linalg.solve_triangular(factor((both + both.T) / 2, _EXACT), held, upper=False)
    return (added @ need_mm.double() * added).sum(1).reshape(size, wide).sum(1)


def choose_splits(
    graph: Graph,
    channels: Channels,
    known: Sequence[Spectrum],
    gone: NDArray[np.bool_],
    price: float,
    per_param: float = 0.0,
    multiple: int = 1,
    element: float = 0.0,
) -> dict[str, Split]:
    """How to split each layer that is worth it: least damage + price x cost.

    Args:
        gone: channel classes that are removed, bool (classes,).
        price: in squared score units per MAC.
        per_param: MACs that one parameter counts for.
        multiple: ranks are multiples of it.
        element: what a number counts for, in MACs; see ``cost.class_work``.
    """
    chosen: dict[str, Split] = {}
    least: dict[str, float] = {}
    for spectrum in known:
        layer = graph[spectrum.layer]
        first, second = halves(graph, layer, separable=spectrum.separable)
        whole, _ = halves(graph, layer, separable=False)
        n_out = int((~gone[channels.of[layer.name]]).sum())
        n_in = int((~gone[channels.of[layer.inputs[0]]]).sum())
        most = n_out
        if spectrum.separable:
            most = min(n_out * second.weights, n_in * first.weights)
        values = spectrum.values[:most]
        # damage[r] of rank r, for r = 0 ... most
        damage = np.append(np.cumsum(values[::-1])[::-1], 0.0)
        each = (first.macs + per_param * first.weights) * n_in
        each += (second.macs + per_param * second.weights) * n_out
        cost = np.arange(len(damage)) * (each + LAYER_SHARE * element * first.numbers)
        all_of_it = (whole.macs + per_param * whole.weights) * n_in * n_out
        ranks = np.arange(multiple, len(damage), multiple)
        ranks = ranks[cost[ranks] <= _WORTH * all_of_it]
        if not len(ranks):
            continue
        best = int(ranks[np.argmin(damage[ranks] + price * cost[ranks])])
        total = damage[best] + price * cost[best]
        # Left whole, the layer is not damaged at all.
        if total <= price * all_of_it and total < least.get(spectrum.layer, np.inf):
            chosen[spectrum.layer] = Split(best, spectrum.separable)
            least[spectrum.layer] = total
    return chosen
