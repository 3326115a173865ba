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

That is the reading called "price"; ``readings`` has others, closer to the letter (``bisection``).

Cost: sum over sites of what lies behind them, 21 forward passes for GoogLeNet's 57 sites, times at
most 6 shares, on a few ranking images; and about 15 forward passes over all search images.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan, complete_only
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.replay import masked_scores
from distillnet.search.bisection import Counted, bisected, trials_of
from distillnet.search.budget import Budget
from distillnet.search.curves import Curve, allocate, measure
from distillnet.search.found import Found
from distillnet.search.judge import Judge, Verdict
from distillnet.search.readings import READINGS, Reading
from distillnet.search.scores import Score
from distillnet.search.units import Cut, Unit, block_units, channel_units, neuron_units

__all__ = ["search_paper", "size_function"]

_GAMMAS = (0.75, 0.6, 0.5, 1.0)
_STEP = 0.01  # resolution of the saving that is searched for
# How many multiply-adds take as long as reading a weight from memory: TF-MNIST's linear layer of
# 12.8 MB takes 0.113 ms, 10 million multiply-adds of its convolution 0.077 (benchmarks/missions.py
# RUN --layers).
_READ = 3.5
_TRIALS = 15  # about as many whole networks are tried; for progress only

Shares = tuple[float, ...]  # by unit


class _Trials:
    """Whole networks on all search images, each run once."""

    def __init__(
        self,
        graph: Graph,
        mission: Mission,
        make_plan: Callable[[Shares], Plan],
        x_nchw: Tensor,
        labels_n: Tensor,
        on_trial: Callable[[int], None],
        open_set: bool,
    ) -> None:
        self.graph, self.make_plan, self.on_trial = graph, make_plan, on_trial
        self.x_nchw, self.open_set = x_nchw, open_set
        original = masked_scores(graph, x_nchw, {})
        self.judge = Judge(original, labels_n, mission)
        self.counted = Counted(original, labels_n, mission, open_set=open_set)
        self.done: dict[Shares, Verdict] = {}
        self.losses_pp: dict[Shares, float] = {}  # counted, all classes or the mission's

    def run(self, shares: Shares) -> Verdict:
        if shares not in self.done:
            scores = masked_scores(self.graph, self.x_nchw, self.make_plan(shares).keep)
            self.done[shares] = self.judge.verdict(scores)
            self.losses_pp[shares] = self.counted.loss_pp(scores)
            self.on_trial(len(self.done))
        return self.done[shares]

    def within(self, budget: Budget, shares: Shares) -> bool:
        """Whether the losses are within the budget."""
        verdict = self.run(shares)
        if self.open_set:
            return self.losses_pp[shares] <= budget.max_loss_pp
        return self.judge.allows(budget, verdict)


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
    in_blocks: bool = False,
    reading: Reading = READINGS["price"],
    ranking_images_per_class: int = 12,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """The plan with the largest saving whose loss on the search images is within the budget.

    With a target ratio instead of a loss, the plan of least charge that reaches it. Targets and
    ``complete_only_plan`` cut whole channels, since only those count in what every runtime
    realises.

    Args:
        x_nchw: search images; no statistics were made of them and no figure is reported on them.
        labels_n: positions in the mission.
        in_blocks: remove places for as many channels as the C engine computes together, instead of
            single neurons. Weights that need not be read then count as a saving, too.
        reading: how thresholds are found; a target takes those of one price.
    """
    target = budget.target_macs or budget.target_params
    whole_channels = complete_only_plan or bool(target)
    if whole_channels:
        units = channel_units(graph, channels, score)
    else:
        units = (block_units if in_blocks else neuron_units)(channels, score)
    original = cost(graph, channels)
    weight = 0.0 if target else reading.param_weight
    size = size_function(
        budget, whole_channels, in_blocks, weight * original.macs / original.params
    )
    by_price = bool(target) or reading.thresholds == "price"
    steps = len(units) + _TRIALS if by_price else trials_of(reading, len(units)) + 1

    def make_plan(shares: Shares) -> Plan:
        keep = {site: cut.keep for site, cut in _cut(units, shares).items()}
        plan = Plan(keep, mission.indices)
        return complete_only(channels, plan) if whole_channels else plan

    def on_trial(n: int) -> None:
        on_progress(min(len(units) + n, steps - 1), steps)

    def saved(shares: Shares) -> float:
        return 1 - size(cost(graph, channels, make_plan(shares))) / full

    full = size(original)
    trials = _Trials(graph, mission, make_plan, x_nchw, labels_n, on_trial, reading.open_set)
    if by_price:
        x_ranking = x_nchw[_ranking_images(labels_n, ranking_images_per_class)]
        curves = measure(
            graph, channels, mission, units, x_ranking, size, lambda n: on_progress(n, steps)
        )
        if target:
            chosen = _reaching(curves, lambda shares: 1 / (1 - saved(shares)) >= target)
        else:
            chosen = _within(curves, lambda shares: trials.within(budget, shares))
    else:
        alone = [tuple(0.5 * (i == j) for j in range(len(units))) for i in range(len(units))]
        chosen = bisected(
            graph, units, score, x_nchw, trials.counted, budget.max_loss_pp, reading,
            [saved(shares) for shares in alone] if reading.order == "saving" else [],
            lambda n: on_progress(n, steps),
        )  # fmt: skip
    result = trials.run(chosen)
    on_progress(steps, steps)
    cuts, plan = _cut(units, chosen), make_plan(chosen)
    return Found(
        plan,
        {site: cut.threshold for site, cut in cuts.items()},
        {site: _explained(cut, plan.keep[site]) for site, cut in cuts.items()},
        result,
        1 / (1 - saved(chosen)) >= target if target else any(chosen),
        graph,
        seen=trials.judge.seen,
        stopped_by="higher thresholds, which lose more than the budget",
    )


def _reaching(curves: Sequence[Curve], enough: Callable[[Shares], bool]) -> Shares:
    """The shares of the least saving that is enough."""
    gamma = _GAMMAS[0]
    most_short = _largest(lambda wanted: not enough(allocate(curves, gamma, wanted)), -_STEP)
    return allocate(curves, gamma, most_short + _STEP)


def _within(curves: Sequence[Curve], fits: Callable[[Shares], bool]) -> Shares:
    """The shares of the largest saving that fits, at the gamma that allows most."""
    chosen: Shares = (0.0,) * len(curves)
    saving = 0.0
    for gamma in _GAMMAS:
        found = _largest(lambda wanted, g=gamma: fits(allocate(curves, g, wanted)), saving)  # type: ignore[misc]
        if found > saving:
            chosen, saving = allocate(curves, gamma, found), found
    return chosen


def _explained(cut: Cut, keep: Tensor) -> Tensor:
    """The cut's bitmaps; what the plan keeps though no class asks for it is kept for all."""
    return cut.keep_k | (keep & ~cut.keep)


def size_function(
    budget: Budget, whole_channels: bool, in_blocks: bool, per_param: float = 0.0
) -> Callable[[Cost], float]:
    """What of a cost the search makes small; of blocks, what stands for time in the C engine.

    ``per_param`` is what a parameter counts, in MACs.
    """
    if budget.target_params:
        return lambda c: c.params
    if whole_channels:
        return lambda c: c.macs + per_param * c.params
    per_param += _READ if in_blocks else 0.0
    return lambda c: c.macs_with_partial + per_param * c.params


def _ranking_images(labels_n: Tensor, per_class: int) -> Tensor:
    """The first images of each class: indices (n,)."""
    return torch.cat([torch.where(labels_n == c)[0][:per_class] for c in labels_n.unique()])


def _cut(units: Sequence[Unit], shares: Shares) -> dict[str, Cut]:
    """The cut of each site that loses anything."""
    cuts: dict[str, Cut] = {}
    for unit, share in zip(units, shares, strict=True):
        if share > 0:
            cuts.update(unit.cut(share))
    return cuts


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
