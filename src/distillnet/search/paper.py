"""The paper's search: one threshold per layer, as large as the budget allows (section 6.1).

The paper raises each layer's threshold by binary search until the classification suffers. Two
things it leaves open are settled here.

*What suffers* between two countable errors. On 500 images one error is 0.2 points, so 1 point is
five errors: were each of 57 layers judged by its errors alone, the first would take them all, and
below one error everything looks free. Steps are therefore ranked by the divergence of the mission's
class probabilities from the original network's, KL(original || masked), which moves with every
image and needs no labels. Errors decide only at the end, for the network as a whole.

*How layers share the budget.* Each site's divergence is measured alone, for a few shares of
neurons, computing only what lies behind the site. Together the cuts do more harm than the sum: each
takes something positive away, so their effects on the scores add up in part like amplitudes, the
square roots of the divergences (on GoogLeNet 57 cuts of 0.0018 nats in sum gave 0.016 together).
Sites are therefore charged divergence^gamma, gamma between 1/2 (all effects in step) and 1
(independent). For a wanted saving each site takes the share that maximises
saving - divergence^gamma / price, at one price for all, as a budget spent optimally must have. The
largest saving within the budget is found by binary search on the whole network; a gamma is kept
when it allows more than the one before.

Cost: sum over sites of what lies behind them, 21 forward passes for GoogLeNet's 57 sites, times at
most 6 shares, on a few ranking images; and about 12 forward passes over all search images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distillnet.channels import Channels
from distillnet.classes import Mission
from distillnet.cost import Cost, cost
from distillnet.graph import Graph
from distillnet.plan import Plan, complete_only
from distillnet.replay import Replay, masked_scores
from distillnet.search.budget import Budget
from distillnet.search.scores import Score
from distillnet.search.units import Unit, channel_units, neuron_units

__all__ = ["Found", "search_paper"]

# Shares of a unit's neurons whose divergence is measured; between them it is interpolated.
_SHARES = (0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
# Divergence in nats after which larger shares of a site are not tried: whole networks that lost one
# point of accuracy were at 0.02.
_HOPELESS = 0.1
_FINE = tuple(i / 100 for i in range(96))
_GAMMAS = (0.75, 0.6, 0.5, 1.0)
_STEP = 0.01  # resolution of the saving that is searched for
# Below this many errors in the budget, errors are too few to count, and the network's own expected
# error has to stay within the budget, too.
_COUNTABLE = 3


@dataclass(frozen=True)
class Found:
    """A plan, the thresholds that made it, and what the search saw on its own images."""

    plan: Plan
    thresholds: Mapping[str, float]  # TH_l by site
    loss_pp: float
    divergence: float  # nats per image
    met: bool  # whether the budget was met with anything removed at all


@dataclass(frozen=True)
class _Curve:
    """A unit's measured divergence and saving (share of the network's cost) by share removed."""

    unit: Unit
    shares: tuple[float, ...]
    divergences: tuple[float, ...]
    savings: tuple[float, ...]

    def table(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Shares in fine steps, and the divergence and saving of each, interpolated."""
        fine = np.array([x for x in _FINE if x <= self.shares[-1]])
        divergences = [_interpolate_power(x, self.shares, self.divergences) for x in fine]
        return fine, np.array(divergences), np.interp(fine, self.shares, self.savings)


def search_paper(
    graph: Graph,
    channels: Channels,
    score: Score,
    mission: Mission,
    x_nchw: Tensor,
    labels_n: Tensor,
    budget: Budget,
    *,
    complete_only_plan: bool = False,
    ranking_images_per_class: int = 12,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """The plan with the largest saving whose loss on the search images is within the budget.

    With a target ratio instead of a loss, the plan of least divergence that reaches it. Targets
    and ``complete_only_plan`` cut whole channels, since only those count in what every runtime
    realises.

    Args:
        x_nchw: search images; no statistics were made of them and no figure is reported on them.
        labels_n: positions in the mission.
    """
    whole_channels = complete_only_plan or bool(budget.target_macs or budget.target_params)
    units = (
        channel_units(graph, channels, score) if whole_channels else neuron_units(channels, score)
    )
    size = _size_function(budget, whole_channels)
    outputs = mission.indices
    dense = size(cost(graph, channels, Plan(outputs=outputs)))

    ranking = _ranking_images(labels_n, ranking_images_per_class)
    steps = len(units) + 15
    replay = Replay(graph, x_nchw[ranking])
    curves = []
    reference: Tensor | None = None
    for i, unit in enumerate(units):
        replay.go_to(unit.sites)
        if reference is None:
            reference = _log_p(replay.scores({}), mission)
        curves.append(_measure(graph, channels, mission, unit, replay, reference, size, dense))
        on_progress(i + 1, steps)
    del replay

    base = _log_p(masked_scores(graph, x_nchw, {}), mission)
    base_error, base_expected = _errors_pp(base, labels_n)
    countable = budget.max_loss_pp * len(labels_n) >= 100 * _COUNTABLE
    tables = [curve.table() for curve in curves]
    seen: dict[tuple[float, ...], tuple[float, float, float]] = {}

    def cuts(shares: tuple[float, ...]) -> dict[str, tuple[float, Tensor]]:
        result: dict[str, tuple[float, Tensor]] = {}
        for unit, share in zip(units, shares, strict=True):
            if share > 0:
                result.update(unit.cut(share))
        return result

    def keep_of(shares: tuple[float, ...]) -> dict[str, Tensor]:
        return {site: bits for site, (_, bits) in cuts(shares).items()}

    def evaluate(shares: tuple[float, ...]) -> tuple[float, float, float]:
        """Loss in points, expected loss in points, divergence: all search images."""
        if shares not in seen:
            now = _log_p(masked_scores(graph, x_nchw, keep_of(shares)), mission)
            error, expected = _errors_pp(now, labels_n)
            seen[shares] = (error - base_error, expected - base_expected, _divergence(base, now))
            on_progress(min(len(units) + len(seen), steps - 1), steps)
        return seen[shares]

    def fits(shares: tuple[float, ...]) -> bool:
        loss, expected_loss, _ = evaluate(shares)
        if not countable:
            loss = max(loss, expected_loss)
        return loss <= budget.max_loss_pp + 1e-9  # five errors of 500 are within 1 point

    target = budget.target_macs or budget.target_params
    if target:
        full = size(cost(graph, channels))

        def short(shares: tuple[float, ...]) -> bool:
            return full / size(cost(graph, channels, Plan(keep_of(shares), outputs))) < target

        saving = _largest(lambda s: short(_allocate(tables, _GAMMAS[0], s)), 0.0)
        chosen = _allocate(tables, _GAMMAS[0], saving + _STEP)
    else:
        chosen, saving = (0.0,) * len(units), 0.0
        for gamma in _GAMMAS:
            found = _largest(lambda s, g=gamma: fits(_allocate(tables, g, s)), saving)  # type: ignore[misc]
            if found > saving:
                chosen, saving = _allocate(tables, gamma, found), found
    loss, _, divergence = evaluate(chosen)
    plan = Plan(keep_of(chosen), outputs)
    if whole_channels:
        plan = complete_only(channels, plan)
    on_progress(steps, steps)
    thresholds = {site: threshold for site, (threshold, _) in cuts(chosen).items()}
    return Found(plan, thresholds, loss, divergence, any(chosen))


def _size_function(budget: Budget, whole_channels: bool) -> Callable[[Cost], int]:
    if budget.target_params:
        return lambda c: c.params
    return (lambda c: c.macs) if whole_channels else (lambda c: c.macs_with_partial)


def _ranking_images(labels_n: Tensor, per_class: int) -> Tensor:
    """The first images of each class: indices (n,)."""
    return torch.cat([torch.where(labels_n == c)[0][:per_class] for c in labels_n.unique()])


def _log_p(scores_nk: Tensor, mission: Mission) -> Tensor:
    return F.log_softmax(scores_nk[:, list(mission.indices)].double().cpu(), 1)


def _divergence(reference: Tensor, now: Tensor) -> float:
    """KL(reference || now) of class probabilities, mean over images, in nats."""
    return float(F.kl_div(now, reference, log_target=True, reduction="batchmean"))


def _measure(
    graph: Graph,
    channels: Channels,
    mission: Mission,
    unit: Unit,
    replay: Replay,
    reference: Tensor,
    size: Callable[[Cost], int],
    dense: int,
) -> _Curve:
    shares, divergences, savings = [0.0], [0.0], [0.0]
    for share in _SHARES:
        keep = {site: bits for site, (_, bits) in unit.cut(share).items()}
        divergence = _divergence(reference, _log_p(replay.scores(keep), mission))
        left = size(cost(graph, channels, Plan(keep, mission.indices)))
        shares.append(share)
        # More removed is never better: what looks so is noise of few images.
        divergences.append(max(divergence, divergences[-1]))
        savings.append(1 - left / dense)
        if divergence > _HOPELESS:
            break
    return _Curve(unit, tuple(shares), tuple(divergences), tuple(savings))


_Table = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _allocate(tables: Sequence[_Table], gamma: float, saving: float) -> tuple[float, ...]:
    """The share of each unit for a wanted saving in sum, at one price for all units.

    Less than wanted where even the largest shares save less.
    """
    if saving <= 0:
        return (0.0,) * len(tables)
    low, high = -40.0, 20.0  # powers of two
    for _ in range(40):
        middle = (low + high) / 2
        if sum(t[2][i] for t, i in zip(tables, _best(tables, gamma, middle), strict=True)) < saving:
            low = middle
        else:
            high = middle
    return tuple(float(t[0][i]) for t, i in zip(tables, _best(tables, gamma, high), strict=True))


def _best(tables: Sequence[_Table], gamma: float, log_price: float) -> list[int]:
    """For each unit the position of the share with the largest saving less charge."""
    price = 2.0**log_price
    return [int(np.argmax(saved - harm**gamma / price)) for _, harm, saved in tables]


def _largest(good: Callable[[float], bool], start: float) -> float:
    """The largest saving that is good, to one step, or ``start`` where nothing above it is.

    ``good`` is taken to hold up to some saving and to fail above it. Steps double until it fails,
    then halve.
    """
    step, low = _STEP, start
    while low + step < 1 and good(low + step):
        low += step
        step *= 2
    while step > _STEP:
        step /= 2
        if good(low + step):
            low += step
    return low


def _errors_pp(log_p: Tensor, labels_n: Tensor) -> tuple[float, float]:
    """Errors, and errors that the probabilities expect (mean of 1 - p of the label), in percent."""
    wrong = (log_p.argmax(1) != labels_n).double().mean()
    expected = 1 - log_p.exp().gather(1, labels_n[:, None]).mean()
    return 100 * float(wrong), 100 * float(expected)


def _interpolate_power(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate as a power law, which divergences follow; below the first point as x^2."""
    i = next(i for i in range(1, len(xs)) if x <= xs[i])
    if x <= 0 or ys[i] <= 0:
        return 0.0
    if xs[i - 1] <= 0 or ys[i - 1] <= 0:
        return ys[i] * (x / xs[i]) ** 2
    slope = math.log(ys[i] / ys[i - 1]) / math.log(xs[i] / xs[i - 1])
    return ys[i] * (x / xs[i]) ** slope
