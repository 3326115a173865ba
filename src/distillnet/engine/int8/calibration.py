"""The range of every value of a network, seen on images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.graph import Graph, fast_layout, run

__all__ = ["CALIBRATIONS", "Ranges", "find_ranges", "united"]

# How a range is taken from what was seen; which is best depends on the network.
CALIBRATIONS = ("MinMax", "Percentile", "MSE")

Ranges = Mapping[str, tuple[float, float]]  # by node: the least and the largest number

_BINS = 2048
_BATCH = 8
_MOST_COUNTED = 50_000  # numbers of a value in a batch, every so-manieth
_INSIDE = 0.9999  # of the values, by percentile
_SHARES = np.linspace(0.35, 1.0, 40)  # of the range that errors are compared over


@dataclass
class _Seen:
    """A value's least and largest number, and how often what lies between was seen."""

    least: float
    most: float
    counts: NDArray[np.float64]


def find_ranges(graph: Graph, x_nchw: Tensor) -> dict[str, Ranges]:
    """Ranges by each of ``CALIBRATIONS``, of all nodes, from normalised images (N, C, H, W)."""
    seen: dict[str, _Seen] = {}

    def bounds(name: str, y: Tensor) -> None:
        # Padding of maximum pools may be infinite, and no byte stands for that.
        finite = y[y.isfinite()]
        low, high = (float(v) for v in finite.aminmax()) if finite.numel() else (0.0, 0.0)
        old = seen.setdefault(name, _Seen(low, high, np.zeros(_BINS)))
        old.least, old.most = min(old.least, low), max(old.most, high)

    def counts(name: str, y: Tensor) -> None:
        one = seen[name]
        if one.most > one.least:
            some = y.flatten()[:: max(1, y.numel() // _MOST_COUNTED)].double().numpy()
            at = (some[np.isfinite(some)] - one.least) * (_BINS / (one.most - one.least))
            one.counts += np.bincount(at.astype(np.int64).clip(0, _BINS - 1), minlength=_BINS)

    for observe in (bounds, counts):
        _observe(graph, x_nchw, observe)
    return {
        "MinMax": {name: (one.least, one.most) for name, one in seen.items()},
        "Percentile": {name: _by_percentile(one) for name, one in seen.items()},
        "MSE": {name: _by_error(one) for name, one in seen.items()},
    }


def united(ranges: Sequence[Ranges]) -> Ranges:
    """Ranges that hold those of each of several missions.

    >>> united([{"a": (0.0, 2.0)}, {"a": (-1.0, 1.0)}])
    {'a': (-1.0, 2.0)}
    """
    return {
        name: (min(one[name][0] for one in ranges), max(one[name][1] for one in ranges))
        for name in ranges[0]
    }


def _observe(graph: Graph, x_nchw: Tensor, observe: Callable[[str, Tensor], None]) -> None:
    with torch.inference_mode():
        for part in x_nchw.split(_BATCH):
            observe(graph.input.name, part)
            run(graph, {graph.input.name: fast_layout(part)}, observe=observe)


def _by_percentile(one: _Seen) -> tuple[float, float]:
    """What holds nearly all values, the same share left out on either side."""
    total = one.counts.sum()
    if not total:
        return one.least, one.most
    share = np.concatenate([[0.0], one.counts.cumsum()]) / total
    edges = np.linspace(one.least, one.most, _BINS + 1)
    outside = (1 - _INSIDE) / 2
    low = edges[max(0, int(np.searchsorted(share, outside, "right")) - 1)]
    high = edges[min(_BINS, int(np.searchsorted(share, 1 - outside)))]
    return float(low), float(high)


def _by_error(one: _Seen) -> tuple[float, float]:
    """The part of the range whose 256 steps give the values back with the least square error."""
    if not one.counts.sum():
        return one.least, one.most
    edges = np.linspace(one.least, one.most, _BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    best, least_error = (one.least, one.most), np.inf
    for share in _SHARES:
        low, high = one.least * share, one.most * share
        if one.least > 0:
            low = 0.0
        if one.most < 0:
            high = 0.0
        step = max(high - min(low, 0.0), 1e-30) / 255
        beyond = np.maximum(low - middle, 0) + np.maximum(middle - high, 0)
        error = float(one.counts @ np.where(beyond > 0, beyond**2, step**2 / 12))
        if error < least_error:
            best, least_error = (low, high), error
    return best
