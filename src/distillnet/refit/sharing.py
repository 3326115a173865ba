"""Weights that share few values: rounded one column after the other, the rest making up for it.

A layer's error is E |(W - V) x|^2 for its inputs x, by rows weighed with what the network feels of
each output. Column by column a weight is rounded to a level, and what that changes is taken back by
the columns that are still free, as the covariance H of the inputs says is best (optimal brain
surgeon; Frantar and others, GPTQ, arXiv:2210.17323). What a column's error costs in the end is its
conditional variance 1/d^2, so steps are as wide as the square root of that allows, for each column
and each row: then all levels cost alike, and one number, the *coarseness*, is the whole setting.

A weight is not rounded to the nearest level but to that which costs least, bits included: 0 takes
few bits, so small weights go. That is magnitude pruning where the magnitude counts what it does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.graph import Graph, consumers, fast_layout, run
from distillnet.graph.operators import Node
from distillnet.models.packed import steps_of
from distillnet.refit.compensation import Rolling, flat_parts, with_biases
from distillnet.refit.regression import fit_affine
from distillnet.refit.samples import rows_per_image
from distillnet.refit.teacher import Teacher, refittable

__all__ = ["Levels", "Shares", "feel", "prune_to", "round_columns", "share"]

_BATCH = 16
# Squared error, in squared steps, that a bit is worth. A step that is small against the spread has
# an error of 1/12 that falls to a quarter with each bit: its slope is 2 ln 2 / 12.
_BIT = 0.12
_ROUNDS = 3  # of levels, then of what bits they take
_MOST = 2**16 - 1
# Of the inputs' covariance: what is taken for each input's own, since images are few and others
# will come; and of the mean variance.
_OWN, _RIDGE = 0.1, 1e-3
_LEAST_FELT = 1e-6  # of the most


@dataclass(frozen=True)
class Levels:
    """A matrix (M, D) as levels times steps, given as half octaves of each row and column."""

    levels: Tensor
    rows: NDArray[np.int8]
    columns: NDArray[np.int8]

    @property
    def weight(self) -> Tensor:
        """What they stand for (M, D), float32."""
        return self.levels * (_step(self.rows)[:, None] * _step(self.columns))


@dataclass(frozen=True)
class Shares:
    """A network whose layers were rounded.

    Attributes:
        graph: with the rounded weights.
        levels: by name of the weight, in the shape (M, D).
    """

    graph: Graph
    levels: Mapping[str, Levels]


def feel(graph: Graph, x_nchw: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """What the network's answer feels of each layer's outputs (M,), summed over their places.

    The Fisher information: the mean squared gradient of the log-likelihood of answers that are
    drawn as likely as the network says. The last layer's outputs count alike, since the classes of
    the images at hand are not all that it knows.
    """
    layers = refittable(graph)
    felt = {layer.name: graph.params[layer.params["weight"]].new_zeros(layer.shape[0])
            for layer in layers}  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for part in x_nchw.split(_BATCH):
        values: dict[str, Tensor] = {}

        def observe(name: str, y: Tensor, into: dict[str, Tensor] = values) -> None:
            if name in felt:
                into[name] = y

        x = fast_layout(part).detach().requires_grad_()
        with torch.enable_grad():
            scores = run(graph, {graph.input.name: x}, observe=observe)[graph.output]
            drawn = torch.multinomial(scores.detach().softmax(1).cpu(), 1, generator=generator)
            likely = scores.log_softmax(1).gather(1, drawn.to(scores.device)).sum()
            slopes = torch.autograd.grad(likely, list(values.values()))
        for name, slope in zip(values, slopes, strict=True):
            felt[name] += slope.square().sum((0, *range(2, slope.ndim))) / len(x_nchw)
    last = layers[-1].name
    felt[last] = felt[last].mean().expand_as(felt[last])
    return felt


def share(
    graph: Graph,
    teacher: Teacher,
    x_nchw: Tensor,
    felt: Mapping[str, Tensor],
    coarseness: float,
    *,
    max_bytes: int = 10**9,
    on_layer: Callable[[int, int], None] = lambda done, of: None,
) -> Shares:
    """Round all layers, each refitted first to make up for those before it.

    Args:
        graph: with a bias in each layer (``with_biases``).
        teacher: what it says on the images.
        felt: by layer (M,), see ``feel``.
        coarseness: twice as much takes one bit less for each weight.
        max_bytes: of values kept between layers.
    """
    found: dict[str, Levels] = {}

    def rounded(layer: Node, weight: Tensor, covariance: Tensor) -> Tensor:
        levels = round_columns(weight, covariance, felt[layer.name], coarseness)
        found[layer.params["weight"]] = levels
        return levels.weight

    return Shares(_layer_by_layer(graph, teacher, x_nchw, max_bytes, rounded, on_layer), found)


def prune_to(
    graph: Graph,
    teacher: Teacher,
    x_nchw: Tensor,
    keep: Mapping[str, Tensor],
    *,
    max_bytes: int = 10**9,
) -> Graph:
    """The network with no weights but those that are kept, refitted and not rounded.

    Args:
        keep: by name of the weight, bool (M, D).
    """

    def pruned(layer: Node, weight: Tensor, covariance: Tensor) -> Tensor:
        kept = keep[layer.params["weight"]]
        return _sweep(weight, _system(covariance)[1], lambda column, j: column * kept[:, j])

    return _layer_by_layer(graph, teacher, x_nchw, max_bytes, pruned, lambda done, of: None)


def _layer_by_layer(
    graph: Graph,
    teacher: Teacher,
    x_nchw: Tensor,
    max_bytes: int,
    change: Callable[[Node, Tensor, Tensor], Tensor],
    on_layer: Callable[[int, int], None],
) -> Graph:
    """Refit each layer to what it reads by now, change its weight (M, D), and mend its bias."""
    graph = with_biases(graph)
    params = dict(graph.params)
    students, readers, layers = (
        Rolling(graph, params, x_nchw, max_bytes), consumers(graph), refittable(graph)
    )  # fmt: skip
    for i, layer in enumerate(layers):
        places_nr = teacher.places[layer.name]
        weight, bias = params[layer.params["weight"]], params[layer.params["bias"]]
        per_image = min(places_nr.shape[1], rows_per_image(weight[0].numel(), len(places_nr)))
        x_rd = students.patches(layer, places_nr[:, :per_image])
        aims = teacher.rows[layer.name].unflatten(0, places_nr.shape)[:, :per_image]
        aims = aims.flatten(0, 1)[: len(x_rd)].to(x_rd.dtype)
        flat = flat_parts(readers[layer.name])
        image_r = torch.arange(len(places_nr)).repeat_interleave(per_image)[: len(x_rd)]
        fitted, bias = fit_affine(x_rd, aims, weight.flatten(1), bias, flat, image_r)
        mean = x_rd.mean(0)
        centred = x_rd - mean
        new = change(layer, fitted, centred.T @ centred / len(x_rd))
        params[layer.params["weight"]] = fast_layout(new.reshape(weight.shape))
        # Of what goes to the file in half precision, the network computes with that.
        params[layer.params["bias"]] = (bias + (fitted - new) @ mean).half().float()
        on_layer(i + 1, len(layers))
    return replace(graph, params=params)


def round_columns(
    weight_md: Tensor, covariance_dd: Tensor, felt_m: Tensor, coarseness: float
) -> Levels:
    """The levels of a weight that cost least, errors and bits together; see the module's text.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> fine = round_columns(torch.eye(3), x.T @ x / 50, torch.ones(3), 1e-3)
    >>> bool((fine.weight - torch.eye(3)).abs().max() < 1e-2)
    True
    """
    spread, share_dd = _system(covariance_dd)
    felt = felt_m.clamp_min(max(float(felt_m.max()) * _LEAST_FELT, 1e-30))
    rows, columns = _half_octaves(coarseness / felt.sqrt()), _half_octaves(spread)
    row_steps, column_steps = _step(rows).to(weight_md.device), _step(columns)
    levels = torch.zeros_like(weight_md)
    bits: Tensor | None = None
    for _ in range(_ROUNDS):

        def nearest(column: Tensor, j: int, bits: Tensor | None = bits) -> Tensor:
            step = row_steps * column_steps[j]
            level = _cheapest(column / step, bits)
            levels[:, j] = level
            return level * step

        _sweep(weight_md, share_dd, nearest)
        bits = _bits_of(levels)
    return Levels(levels, rows, columns)


def _system(covariance_dd: Tensor) -> tuple[Tensor, Tensor]:
    """Spreads d (D,) of the columns' errors, and what the rest makes up for each of them (D, D)."""
    h = covariance_dd.double()
    own = h.diagonal().clone()
    h = (1 - _OWN) * h
    h.diagonal().add_(_OWN * own + _RIDGE * own.mean() + 1e-12)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True)
    spread = upper.diagonal()
    return spread.float(), (upper / spread[:, None]).float()


def _sweep(weight_md: Tensor, share_dd: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Change a weight column by column, the columns that follow making up for each change."""
    left, done = weight_md.clone(), torch.empty_like(weight_md)
    for j in range(left.shape[1]):
        done[:, j] = change(left[:, j], j)
        left[:, j + 1 :].addr_(left[:, j] - done[:, j], share_dd[j, j + 1 :], alpha=-1)
    return done


def _cheapest(x_m: Tensor, bits: Tensor | None) -> Tensor:
    """The level of each number, in steps, that costs least; the nearest while bits are unknown."""
    if bits is None:
        return x_m.round().clamp(-_MOST, _MOST) + 0.0  # without it -0 would be another number
    size = x_m.abs()
    low = size.floor().clamp_max(min(len(bits) - 2, _MOST - 1))
    choices = torch.stack([torch.zeros_like(low), low, low + 1])
    cost = (choices - size).square() + _BIT * bits[choices.long()]
    return choices.gather(0, cost.argmin(0, keepdim=True))[0] * x_m.sign() + 0.0


def _bits_of(levels: Tensor) -> Tensor:
    """What each size of level takes, from how often it occurs, with its sign."""
    size = levels.abs().long().flatten()
    count = torch.bincount(size, minlength=int(size.max()) + 2).double() + 0.5
    bits = -(count / count.sum()).log2()
    bits[1:] += 1
    return bits.float()


def _half_octaves(x: Tensor) -> NDArray[np.int8]:
    found: NDArray[np.int8] = (
        (2 * torch.log2(x)).round().clamp(-127, 127).to(torch.int8).cpu().numpy()
    )
    return found


def _step(half_octaves: NDArray[np.int8]) -> Tensor:
    return torch.from_numpy(steps_of(half_octaves))
