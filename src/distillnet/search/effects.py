"""What changed weights do to the mission's scores, and damages that are put right by it.

The surgeon (``orders``) and the spectra (``splits``) take a layer's errors at the places of an
image to be independent of each other. They are not: a direction of its outputs that is left out is
missing wherever an image holds it. So errors do more than that, by 1 to 50 times as much: most in
late layers and for low ranks, less where channels go.

What they do to first order can be told. With e_i(p) the error at place p of image i and g_i(p) the
gradient of the mission's centred scores under a random +-1 projection (``evidence``), the scores
change by the sum over p of g_i(p)^T e_i(p). Of weights that change by dW it is

    tr dW^T G_i,   G_i = sum over p of g_i(p) (x_i(p) - x)^T

x_i(p): the patch that is read there; x: the mean of all, for what errors are on average a bias
makes up for. G_i is the gradient by the weights, of one image. The effect of dW is the mean square
over images. It is measured of what a few ranks of each spectrum leave out, and of what is gone with
a quarter and half of each order's channels, the rest refitted; the damages between and beside these
are scaled as those are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.thin import Split
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.operators import Node
from distillnet.refit.regression import Thin
from distillnet.refit.samples import evenly
from distillnet.search.evidence import BATCH, Evidence, columns_of, forward_backward
from distillnet.search.orders import RIDGE, Order
from distillnet.search.splits import Spectrum

__all__ = ["effects", "put_right"]

_IMAGES = 160  # tell within a tenth
_MOST_WEIGHTS = 4 * 10**6  # of a layer that is followed; others are scaled as most are
_OF_RANKS = {False: (0.1, 0.25, 0.5), True: (0.05, 0.125, 0.25)}  # by whether separable
_OF_CHANNELS = (0.25, 0.5)
# Of the usual factor: what the first layers do wrong those behind make up for, but not all of it,
# and few images tell little of them.
_LEAST = 0.5
_NO_EFFECT = 1e-9  # where nothing is felt of anything

Change = Mapping[str, Tensor]  # by layer, what is added to its weight (M, D)
Factors = Mapping[int, float]  # by rank or count, what the damage is to be multiplied by


def put_right(
    graph: Graph,
    channels: Channels,
    mission: Mission,
    x_nchw: Tensor,
    evidence: Evidence,
    orders: Sequence[Order],
    known: Sequence[Spectrum],
) -> tuple[tuple[Order, ...], tuple[Spectrum, ...]]:
    """Orders and spectra with damages as errors are felt, not as if each place had its own.

    Args:
        evidence: that both are told from.
    """
    trials = [_of_order(graph, channels, evidence, order) for order in orders]
    trials += [_of_spectrum(graph, evidence, spectrum) for spectrum in known]
    x_nchw = x_nchw[evenly(torch.arange(len(x_nchw)), _IMAGES)]
    felt = effects(graph, mission, x_nchw, [trial.change for of in trials for trial in of])
    effect = iter(felt.tolist())
    found = [{trial.step: next(effect) / trial.damage for trial in of} for of in trials]
    every = [factor for by_step in found for factor in by_step.values()]
    usual = max(median(every or [1.0]), _NO_EFFECT)
    factors = [
        {step: max(_LEAST * usual, factor) for step, factor in by_step.items()} or {0: usual}
        for by_step in found
    ]
    return (
        tuple(map(_rising, orders, factors[: len(orders)])),
        tuple(map(_falling, known, factors[len(orders) :])),
    )


def effects(
    graph: Graph, mission: Mission, x_nchw: Tensor, changes: Sequence[Change], seed: int = 0
) -> NDArray[np.float64]:
    """Mean squared changes of the mission's centred scores, to first order, (changes,).

    Args:
        changes: of the weights of ungrouped layers; biases follow, so that each layer's mean stays.
    """
    layers = {name: graph[name] for change in changes for name in change}
    which = {name: [i for i, c in enumerate(changes) if name in c] for name in layers}
    stacked = {name: torch.stack([changes[i][name] for i in which[name]]) for name in layers}
    told = {name: _Gradients(graph, layer) for name, layer in layers.items()}
    dots: dict[str, list[Tensor]] = {name: [] for name in layers}
    read = {layer.inputs[0] for layer in layers.values()}
    generator = torch.Generator().manual_seed(seed)
    for part in x_nchw.split(BATCH):
        values, slopes = forward_backward(graph, mission, part, generator, read, ())
        for name, layer in layers.items():
            of_images = told[name].add(values[layer.inputs[0]], slopes[name])
            dots[name].append(of_images @ stacked[name].flatten(1).T)
    by_image = x_nchw.new_zeros(len(x_nchw), len(changes))
    for name, columns in which.items():
        by_image[:, columns] += torch.cat(dots[name]) - told[name].of_mean(stacked[name])
    felt: NDArray[np.float64] = by_image.double().square().mean(0).cpu().numpy()
    return felt


class _Gradients:
    """Gradients by a layer's weight, of each image, and what its mean input has of them."""

    def __init__(self, graph: Graph, layer: Node) -> None:
        self.layer, self.shape = layer, graph.params[layer.params["weight"]].shape
        self.total, self.count = torch.zeros(()), 0
        self.slopes: list[Tensor] = []

    def add(self, x: Tensor, slope: Tensor) -> Tensor:
        """Of a batch, with the mean input still in them (N, M D)."""
        if self.layer.op == "conv":
            a = self.layer.attrs
            x_ndp = F.unfold(x, self.shape[2:], a["dilation"], a["padding"], a["stride"])
        else:
            x_ndp = x[:, :, None]
        slope_nmp = slope.reshape(*slope.shape[:2], -1)
        self.total = self.total.to(x.device) + x_ndp.sum((0, 2))
        self.count += len(x) * x_ndp.shape[2]
        self.slopes.append(slope_nmp.sum(2))
        return (slope_nmp @ x_ndp.transpose(1, 2)).flatten(1)

    def of_mean(self, changes_kmd: Tensor) -> Tensor:
        """What changes do to each image by what they do to the mean input (N, K)."""
        return torch.cat(self.slopes) @ (changes_kmd @ (self.total / self.count)).T


@dataclass(frozen=True)
class _Trial:
    """A change whose effect is measured.

    Attributes:
        step: the rank, or how many channels are gone.
        damage: that it was taken to do.
    """

    step: int
    damage: float
    change: Change


@dataclass(frozen=True)
class _Inputs:
    """How a layer's inputs vary, as the evidence has it."""

    covariance: Tensor
    outputs: Tensor

    def spread(self, weight_md: Tensor) -> Tensor:
        """Covariance of the layer's own outputs."""
        return self.outputs.double()


def _of_spectrum(graph: Graph, evidence: Evidence, spectrum: Spectrum) -> list[_Trial]:
    """What a few ranks of a spectrum leave out."""
    layer = graph[spectrum.layer]
    weight = graph.params[layer.params["weight"]]
    if weight.numel() > _MOST_WEIGHTS:
        return []
    weight_md, need = weight.flatten(1).double(), evidence.needs[layer.name]
    view = next(view for view in evidence.views if layer.name in view.layers)
    inputs = _Inputs(view.covariance, evidence.spreads[layer.name])
    trials = []
    for share in _OF_RANKS[spectrum.separable]:
        rank = math.ceil(share * len(spectrum.values))
        damage = float(spectrum.values[rank:].sum())
        if damage <= 0:
            continue
        thin = Thin(need, Split(rank, spectrum.separable), tuple(weight.shape))
        filters, back = thin.nearest(weight_md, inputs)
        if spectrum.separable:  # filters are told by themselves, their combination by least squares
            held = filters @ view.covariance
            gram = held @ filters.T
            gram.diagonal().add_(1e-9 * gram.diagonal().mean())
            back_t, failed = torch.linalg.solve_ex(gram, held @ weight_md.T)
            if failed:  # of inputs that never vary
                back_t = torch.linalg.pinv(gram, hermitian=True) @ held @ weight_md.T
            back = back_t.T
        trials.append(_Trial(rank, damage, {layer.name: (back @ filters - weight_md).to(weight)}))
    return trials


def _of_order(graph: Graph, channels: Channels, evidence: Evidence, order: Order) -> list[_Trial]:
    """What is gone with some of an order's channels, the rest refitted."""
    trials = []
    for share in _OF_CHANNELS:
        step = int(share * (len(order.counts) - 1))
        gone = np.zeros(channels.count, dtype=bool)
        gone[order.classes[: order.counts[step]]] = True
        change: dict[str, Tensor] = {}
        for view in evidence.views:
            of_column = columns_of(gone[channels.of[view.source]], _columns(view.covariance))
            if not of_column.any():
                continue
            out = torch.from_numpy(of_column).to(view.covariance.device)
            for name in view.layers:
                weight = graph.params[graph[name].params["weight"]].flatten(1)
                if weight.numel() <= _MOST_WEIGHTS:
                    change[name] = _refitted(weight, view.covariance, out)
        if change and order.damages[step] > 0:
            trials.append(_Trial(int(order.counts[step]), float(order.damages[step]), change))
    return trials


def _columns(covariance: Tensor) -> int:
    """Of the patches that a covariance is of, or a view's independent ones."""
    return len(covariance) * (covariance.shape[1] if covariance.ndim == 3 else 1)


def _refitted(weight_md: Tensor, covariance: Tensor, out_d: Tensor) -> Tensor:
    """How a weight changes where inputs go, bool (D,), and the others make up for them."""
    change = -weight_md.double() * out_d
    if covariance.ndim == 2:
        stays = ~out_d
        system = covariance[stays][:, stays]
        system.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp_min(1e-30))
        missing = weight_md.double()[:, out_d] @ covariance[out_d][:, stays]
        change[:, stays] = torch.linalg.solve(system, missing.T).T
    return change.to(weight_md)


def _scale(steps: NDArray[np.int64], factors: Factors) -> NDArray[np.float64]:
    """Factors at all steps: in between and beside those that are known, on logarithmic scales."""
    known = sorted(factors)
    at = np.log1p(steps)
    scale = np.interp(at, np.log1p(known), [math.log(factors[step]) for step in known])
    return np.exp(scale)


def _rising(order: Order, factors: Factors) -> Order:
    scaled = order.damages * _scale(order.counts, factors)
    return replace(order, damages=np.maximum.accumulate(scaled))


def _falling(spectrum: Spectrum, factors: Factors) -> Spectrum:
    left = np.append(np.cumsum(spectrum.values[::-1])[::-1], 0.0)
    left = np.minimum.accumulate(left * _scale(np.arange(len(left)), factors))
    return replace(spectrum, values=-np.diff(left))
