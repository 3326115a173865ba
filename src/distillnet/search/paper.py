"""The paper's search: one threshold per layer, as large as the budget allows (section 6.1).

The paper raises each layer's threshold by binary search until the classification suffers. Two
things it leaves open are settled here.

*What suffers* between two countable errors. On 500 images one error is 0.2 points, so 1 point is
five errors: were each of 57 layers judged by its errors alone, the first would take them all, and
below one error everything looks free. Steps are therefore ranked by the divergence of the mission's
class probabilities from the original network's, KL(original || masked), which moves with every
image and needs no labels. Errors decide only at the end, for the network as a whole.

*How layers share the budget.* Each site's divergence is measured alone, for a few shares of
neurons, computing only what lies behind the site. Then all thresholds rise together: at a price
lambda (divergence per share of the network's cost saved) each site takes the share that maximises
saving - divergence / lambda, and lambda is found by binary search on the whole network: the largest
whose loss of accuracy on the search images is within the budget. Equal prices everywhere are what
a budget spent optimally must have.

Cost: sum over sites of what lies behind them, 21 forward passes for GoogLeNet's 57 sites, times at
most 6 shares, on a few ranking images; and about 10 forward passes over all search images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
# Divergence in nats after which larger shares are not tried: ten times what a whole network may
# lose, about 1 % of the images' probability, would have changed by then.
_HOPELESS = 0.1
_FINE = tuple(i / 100 for i in range(96))


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

    def best_share(self, price: float) -> float:
        """The share that maximises saving - divergence / price; 0 where nothing pays."""
        best, best_value = 0.0, 0.0
        for share in _FINE:
            if price <= 0 or share > self.shares[-1]:
                break
            value = _interpolate(share, self.shares, self.savings) - (
                _interpolate_power(share, self.shares, self.divergences) / price
            )
            if value > best_value:
                best, best_value = share, value
        return best


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
    steps = len(units) + 12
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
    seen: dict[tuple[float, ...], tuple[float, float]] = {}

    def evaluate(shares: tuple[float, ...]) -> tuple[float, float]:
        """(loss in points, divergence) of the whole network on all search images."""
        if shares not in seen:
            keep = {site: bits for site, (_, bits) in _cut(curves, shares).items()}
            now = _log_p(masked_scores(graph, x_nchw, keep), mission)
            errors = (base.argmax(1) == labels_n).sum() - (now.argmax(1) == labels_n).sum()
            seen[shares] = (100 * int(errors) / len(labels_n), _divergence(base, now))
            on_progress(min(len(units) + 1 + len(seen), steps - 1), steps)
        return seen[shares]

    def fits(price: float) -> bool:
        return evaluate(_shares(curves, price))[0] <= budget.max_loss_pp

    def too_large(price: float) -> bool:
        shares = _shares(curves, price)
        keep = {site: bits for site, (_, bits) in _cut(curves, shares).items()}
        left = size(cost(graph, channels, Plan(keep, outputs)))
        target = budget.target_macs or budget.target_params or 1.0
        return size(cost(graph, channels)) / left < target

    if budget.target_macs or budget.target_params:
        price = _largest_price(too_large) * 2 ** (1 / 8)  # the next one up reaches the target
    else:
        price = _largest_price(fits)
    shares = _shares(curves, price)
    loss, divergence = evaluate(shares)
    cuts = _cut(curves, shares)
    plan = Plan({site: bits for site, (_, bits) in cuts.items()}, outputs)
    if whole_channels:
        plan = complete_only(channels, plan)
    on_progress(steps, steps)
    return Found(
        plan,
        {site: threshold for site, (threshold, _) in cuts.items()},
        loss,
        divergence,
        any(shares),
    )


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


def _shares(curves: Sequence[_Curve], price: float) -> tuple[float, ...]:
    return tuple(curve.best_share(price) for curve in curves)


def _cut(curves: Sequence[_Curve], shares: Sequence[float]) -> dict[str, tuple[float, Tensor]]:
    cuts: dict[str, tuple[float, Tensor]] = {}
    for curve, share in zip(curves, shares, strict=True):
        if share > 0:
            cuts.update(curve.unit.cut(share))
    return cuts


def _largest_price(good: Callable[[float], bool]) -> float:
    """The largest price that is good, to an eighth of a power of two, or 0 where none is.

    ``good`` is taken to hold up to some price and to fail above it.
    """
    low, high = -24.0, 8.0  # powers of two
    start = -6.0
    if good(2**start):
        low = start
        while low < high and good(2 ** (low + 2)):
            low += 2
        high = min(high, low + 2)
    else:
        high = start
        while high > low and not good(2 ** (high - 2)):
            high -= 2
        if high <= low:
            return 0.0
        low = high - 2
    while high - low > 1 / 8:
        middle = (low + high) / 2
        if good(2**middle):
            low = middle
        else:
            high = middle
    return float(2**low)


def _segment(x: float, xs: Sequence[float]) -> int:
    return next(i for i in range(1, len(xs)) if x <= xs[i])


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    i = _segment(x, xs)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


def _interpolate_power(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate as a power law, which divergences follow; below the first point as x^2."""
    i = _segment(x, xs)
    if x <= 0 or ys[i] <= 0:
        return 0.0
    if xs[i - 1] <= 0 or ys[i - 1] <= 0:
        return ys[i] * (x / xs[i]) ** 2
    slope = math.log(ys[i] / ys[i - 1]) / math.log(xs[i] / xs[i - 1])
    return ys[i] * (x / xs[i]) ** slope
