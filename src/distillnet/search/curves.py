"""What cutting each unit alone does, and how a wanted saving is spread over all of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.replay import Replay
from distillnet.search.judge import divergence, log_probabilities
from distillnet.search.units import Unit

__all__ = ["Curve", "allocate", "measure"]

# Shares of a unit's neurons whose divergence is measured; between them it is interpolated.
_SHARES = (0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
# Divergence in nats after which larger shares of a site are not tried: whole networks that lost one
# point of accuracy were at 0.02.
_HOPELESS = 0.1
_FINE = np.arange(96) / 100


@dataclass(frozen=True)
class Curve:
    """One unit's harm and saving by the share removed, in steps of 0.01 from 0 on.

    Attributes:
        shares: (S,), what is removed of the unit.
        divergences: (S,), nats per image when nothing else is removed.
        savings: (S,), share of the network's cost.
    """

    shares: NDArray[np.float64]
    divergences: NDArray[np.float64]
    savings: NDArray[np.float64]


def measure(
    graph: Graph,
    channels: Channels,
    mission: Mission,
    units: Sequence[Unit],
    x_nchw: Tensor,
    size: Callable[[Cost], float],
    on_unit: Callable[[int], None],
) -> list[Curve]:
    """The curve of every unit, each cut alone, on ``x_nchw``.

    Args:
        size: which of the costs counts.
        on_unit: called with the number of units done.
    """
    dense = size(cost(graph, channels, Plan(outputs=mission.indices)))
    replay = Replay(graph, x_nchw)
    curves = []
    reference: Tensor | None = None
    for unit in units:
        replay.go_to(unit.sites)
        if reference is None:
            reference = log_probabilities(replay.scores({}), mission)
        shares, harms, savings = [0.0], [0.0], [0.0]
        for share in _SHARES:
            keep = {site: cut.keep for site, cut in unit.cut(share).items()}
            harm = divergence(reference, log_probabilities(replay.scores(keep), mission))
            left = size(cost(graph, channels, Plan(keep, mission.indices)))
            shares.append(share)
            # More removed is never better: what looks so is noise of few images.
            harms.append(max(harm, harms[-1]))
            savings.append(1 - left / dense)
            if harm > _HOPELESS:
                break
        fine = _FINE[shares[-1] >= _FINE]
        finer = np.array([_power_law(x, shares, harms) for x in fine])
        curves.append(Curve(fine, finer, np.interp(fine, shares, savings)))
        on_unit(len(curves))
    return curves


def allocate(curves: Sequence[Curve], gamma: float, saving: float) -> tuple[float, ...]:
    """The share of each unit for a wanted saving in sum, at one price for all units.

    A unit is charged divergence^gamma. Less than wanted where even the largest shares save less.
    """
    if saving <= 0:
        return (0.0,) * len(curves)
    low, high = -40.0, 20.0  # powers of two
    for _ in range(40):
        middle = (low + high) / 2
        taken = zip(curves, _best(curves, gamma, middle), strict=True)
        if sum(curve.savings[i] for curve, i in taken) < saving:
            low = middle
        else:
            high = middle
    best = _best(curves, gamma, high)
    return tuple(float(curve.shares[i]) for curve, i in zip(curves, best, strict=True))


def _best(curves: Sequence[Curve], gamma: float, log_price: float) -> list[int]:
    """For each unit the position of the share with the largest saving less charge."""
    price = 2.0**log_price
    return [int(np.argmax(c.savings - c.divergences**gamma / price)) for c in curves]


def _power_law(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate as a power law, which divergences follow; below the first point as x^2."""
    i = next(i for i in range(1, len(xs)) if x <= xs[i])
    if x <= 0 or ys[i] <= 0:
        return 0.0
    if xs[i - 1] <= 0 or ys[i - 1] <= 0:
        return ys[i] * (x / xs[i]) ** 2
    slope = math.log(ys[i] / ys[i - 1]) / math.log(xs[i] / xs[i - 1])
    return ys[i] * (x / xs[i]) ** slope
