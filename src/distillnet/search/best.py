"""The best method: whole channels by optimal brain surgeon, refitted, at the best input size.

A candidate is an input size and a number of MACs. Its channels follow from the orders of
elimination at one price (``allocation``); its weights from a closed-form refit towards the original
network at the original size (``compensation``), on the statistics images. It is judged on the
search images, which nothing was fitted on.

The sizes share the orders, which are measured once. For the first size the smallest network within
the budget is sought by steps that double and then halve, on a grid of MACs. Every second size is
tried, outwards until one fails to begin one step beyond the best so far, and at last the neighbours
of the best. The network that is returned is refitted once more, on statistics and search images
together: the judgement was made with half of the knowledge, and is on the safe side.

*Two folds.* 500 images tell an expected loss of one point to 0.3 or 0.4 points. Where that does not
decide, and statistics and search images are drawn alike, they change roles: the candidate is fitted
on the search images, too, and judged on the statistics images, so that each image judges weights
that have not seen it.

*Whom to learn from.* A layer that sees a smaller image may be fitted to the original at its own
size or at the small one. Refitting GoogLeNet, uncut, at 160 pixels to what it says at 224 takes the
expected error on unseen images from 4.2 to 2.9 %; SqueezeNet's it raises from 4.4 to 6.2 %. So it
is tried, uncut, at the middle size, and done where it helps.

*Memory.* Images that the original was trained on exaggerate the loss: it knows them by heart, and
what is left of it does not, though on unseen images neither knew anything by heart. A network at
the original size with a fifth of the MACs cut away and refitted is as good as the original on
unseen images (docs/results.md), so what it loses on the search images is the price of forgetting.
This loss, at most the budget itself, is taken off those of all candidates. On unseen images it is
zero but for noise. What counts is the expected loss; see ``judge.is_within``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.channels import Channels
from distillnet.classes import Mission
from distillnet.compensation import compensate
from distillnet.cost import class_macs, cost
from distillnet.graph import Graph
from distillnet.plan import Plan
from distillnet.replay import masked_scores
from distillnet.search.allocation import channel_plan, cut_to_size, open_ledger, round_up
from distillnet.search.budget import Budget
from distillnet.search.evidence import Evidence, measure_evidence
from distillnet.search.found import Found
from distillnet.search.judge import Judge, Verdict, is_sure, is_within
from distillnet.search.orders import Order, elimination_orders
from distillnet.surgery import compact
from distillnet.teacher import Teacher, teach

__all__ = ["Sized", "search_best"]

_STEP = 1.06  # between neighbouring numbers of MACs
_STRIDE, _FINE = 8, 2  # of those steps, at first and at last; the best size is refined to one step
_FIRST = 21  # steps: 3.4 times fewer MACs
_LIGHT = 4  # steps: 1.26 times fewer MACs
_BYTES = 10**9  # of the teacher's answers, and of values kept between layers twice that
_TRIALS = 14  # about as many candidates are tried; for progress only

Size = tuple[int, int]
Importance = Callable[[Evidence], NDArray[np.float64]]


@dataclass(frozen=True)
class Sized:
    """The original network captured at one input size, and the images at that size.

    x_statistics and x_search are (N, C, H, W), the same images at every size.
    """

    graph: Graph
    channels: Channels
    x_statistics: Tensor
    x_search: Tensor


@dataclass(frozen=True)
class _Candidate:
    size: Size
    gone: NDArray[np.bool_]
    plan: Plan
    graph: Graph | None  # refitted, in the original shapes; None once it is off the front
    macs: int
    scores: tuple[Tensor, ...]  # on the search images; then, where asked, on the statistics images
    verdict: Verdict


def search_best(
    sized: Callable[[Size], Sized],
    sizes: Sequence[Size],
    mission: Mission,
    labels_n: Tensor,
    budget: Budget,
    *,
    labels_statistics_n: Tensor | None = None,
    importance: Importance | None = None,
    round_to: int = 1,
    param_weight: float = 0.1,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """The network of fewest MACs whose losses on the search images are within the budget.

    With a target ratio instead, the one of least divergence that reaches it.

    Args:
        sized: the network and its images at an input size; called for one size at a time.
        sizes: (H, W), the original network's own first, falling.
        labels_n: of the search images, positions in the mission.
        labels_statistics_n: of the statistics images, where they are drawn from the same place, so
            that they may judge, too; None leaves all judgement to the search images.
        importance: by channel class (classes,), what goes last; None asks the surgeon.
        round_to: channels of each layer are rounded up to a multiple of this.
        param_weight: how much parameters count beside MACs; see ``allocation.open_ledger``.
    """
    labels = (labels_n,) if labels_statistics_n is None else (labels_n, labels_statistics_n)
    trials = _Trials(sized, sizes[0], mission, labels, importance, seed, on_progress)
    trials.round_to, trials.param_weight = round_to, param_weight
    reach = budget.target_macs or budget.target_params
    chosen = trials.reach(budget, sizes) if reach else trials.smallest(budget, sizes)
    on_progress(_TRIALS - 1, _TRIALS)
    found = trials.finish(chosen)
    on_progress(_TRIALS, _TRIALS)
    return found


class _Trials:
    """Candidates, each made and judged once."""

    def __init__(
        self,
        sized: Callable[[Size], Sized],
        original_size: Size,
        mission: Mission,
        labels: tuple[Tensor, ...],
        importance: Importance | None,
        seed: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.load, self.mission, self.seed = sized, mission, seed
        self.round_to, self.param_weight = 1, 0.0
        self.importance, self.on_progress = importance, on_progress
        self.original = sized(original_size)
        self.size, self.here = original_size, self.original
        scores = [
            masked_scores(self.original.graph, x_nchw, {})
            for x_nchw in _judges(self.original)[: len(labels)]
        ]
        self.folds = len(labels)
        self.judge = Judge(torch.cat(scores), torch.cat(labels), mission)
        nothing = np.zeros(self.original.channels.count, dtype=bool)
        self.macs = class_macs(self.original.graph, self.original.channels, nothing)[1]
        self.learns_from_original_size = True
        self.done: dict[tuple[Size, int], _Candidate] = {}
        self.orders: tuple[Order, ...] | None = None
        self.teachers: dict[int, Teacher] = {}  # by fold, at the present size
        self.light: Verdict | None = None

    def smallest(self, budget: Budget, sizes: Sequence[Size]) -> _Candidate | None:
        """The candidate of fewest MACs within the budget, None where there is none."""
        sizes, finer = sizes[::2], sizes
        self._go_to(sizes[len(sizes) // 2])  # where the orders are measured
        self._choose_teacher()
        if self._try(self.original_size, _LIGHT):
            self.light = self._judged_by_all((self.original_size, _LIGHT)).verdict
        first = len(sizes) // 2  # neither the largest nor the smallest
        level: int | None = self._climb(sizes[first], _FIRST, budget)
        for way in (sizes[first + 1 :], sizes[first - 1 :: -1] if first else ()):
            for size in way:
                start = _FINE if level is None else level + _FINE
                if not self._fits(size, start, budget):
                    break
                level = self._climb(size, start, budget, 2 * _FINE)
        if level is not None:
            best = min(self._fitting(budget), key=lambda c: c.macs)
            at = list(finer).index(best.size)
            for size in (*finer[at + 1 : at + 2], *finer[max(0, at - 1) : at]):
                if self._fits(size, level + 1, budget):
                    level = self._climb(size, level + 1, budget, 2 * _FINE) or level
            best = min(self._fitting(budget), key=lambda c: c.macs)
            self._fits(best.size, level + 1, budget)
        fitting = self._fitting(budget)
        return min(fitting, key=lambda c: (c.macs, c.verdict.divergence), default=None)

    def _fitting(self, budget: Budget) -> list[_Candidate]:
        return [c for c in self.done.values() if self._allows(budget, c)]

    def _climb(self, size: Size, start: int, budget: Budget, stride: int = _STRIDE) -> int | None:
        """The highest level that fits at a size, sought from ``start``; None where none does."""
        low = 0
        if self._fits(size, start, budget):
            low = start
            while self._fits(size, low + stride, budget):
                low += stride
        else:
            high = start
            while high - stride >= 1:
                high -= stride
                if self._fits(size, high, budget):
                    low = high
                    break
        while stride > _FINE:
            stride //= 2
            if self._fits(size, low + stride, budget):
                low += stride
        return low if low >= 1 else None

    def _fits(self, size: Size, level: int, budget: Budget) -> bool:
        candidate = self._try(size, level)
        if candidate is None:
            return False
        if not is_sure(budget, candidate.verdict, self.light):
            candidate = self._judged_by_all((size, level))
        return self._allows(budget, candidate)

    def _allows(self, budget: Budget, candidate: _Candidate) -> bool:
        return is_within(budget, candidate.verdict, self.light)

    def _try(self, size: Size, level: int) -> _Candidate | None:
        """The candidate of ``_STEP`` ** level times fewer MACs; None where it cannot be made."""
        if (size, level) not in self.done:
            allowed = self.macs / _STEP**level
            self._go_to(size)
            here = self.here

            def enough(gone: NDArray[np.bool_]) -> bool:
                return class_macs(here.graph, here.channels, gone)[1] <= allowed

            gone = self._cut(enough)
            if not enough(gone):
                return None
            self.done[size, level] = self._candidate(gone)
            self._forget_weights()
            self.on_progress(min(len(self.done), _TRIALS - 2), _TRIALS)
        return self.done[size, level]

    def _judged_by_all(self, key: tuple[Size, int]) -> _Candidate:
        """The candidate with the verdict of all folds."""
        candidate = self.done[key]
        if len(candidate.scores) < self.folds:
            self._go_to(candidate.size)
            scores = (
                *candidate.scores,
                self._scores(self._refit(candidate.plan, 1), candidate.plan, 1),
            )
            verdict = self.judge.verdict(torch.cat(scores))
            self.done[key] = replace(candidate, scores=scores, verdict=verdict)
            self._forget_weights()
        return self.done[key]

    def _forget_weights(self) -> None:
        """Let go of the weights of candidates that another beats in MACs and loss."""
        front = _front(self.done.values())
        for key, candidate in list(self.done.items()):
            if candidate.graph is not None and not any(candidate is c for c in front):
                self.done[key] = replace(candidate, graph=None)

    def reach(self, budget: Budget, sizes: Sequence[Size]) -> _Candidate:
        """The candidate of least divergence that reaches the ratio of MACs or parameters."""
        total = cost(self.original.graph, self.original.channels)
        if budget.target_params:
            sizes = sizes[:1]  # a smaller image needs no fewer
        self._go_to(sizes[len(sizes) // 2])
        self._choose_teacher()
        for i, size in enumerate(sizes):
            self._go_to(size)
            here = self.here

            def enough(gone: NDArray[np.bool_], here: Sized = here) -> bool:
                plan = channel_plan(here.graph, here.channels, gone, self.mission.indices)
                left = cost(here.graph, here.channels, plan)
                if budget.target_macs:
                    return total.macs / left.macs >= budget.target_macs
                return total.params / left.params >= (budget.target_params or 1)

            self.done[size, 0] = self._candidate(self._cut(enough))
            self.on_progress(min(i + 1, _TRIALS - 2), _TRIALS)
        # Where none reaches it, the smallest.
        reached = [
            c
            for c in self.done.values()
            if not budget.target_macs or self.macs / c.macs >= 0.999 * budget.target_macs
        ]
        if reached:
            return min(reached, key=lambda c: c.verdict.divergence)
        return min(self.done.values(), key=lambda c: c.macs)

    def _choose_teacher(self) -> None:
        """Learn from the original's size where that helps the uncut network at the present one."""
        if self.size == self.original_size:
            return
        here = self.here
        plan = Plan(outputs=self.mission.indices)
        same = self.judge.verdict(self._scores(here.graph, plan, 0))
        refitted = self.judge.verdict(self._scores(self._refit(plan, 0), plan, 0))
        self.learns_from_original_size = refitted.expected_loss_pp < same.expected_loss_pp
        self.teachers.clear()

    def _go_to(self, size: Size) -> None:
        if size != self.size:
            self.here = self.original if size == self.original_size else self.load(size)
            self.size = size
            self.teachers.clear()
        if self.orders is None:
            here = self.here
            evidence = measure_evidence(
                here.graph, here.channels, self.mission, here.x_statistics, self.seed
            )
            importance = None if self.importance is None else self.importance(evidence)
            self.orders = elimination_orders(here.graph, here.channels, evidence, importance)

    @property
    def original_size(self) -> Size:
        height, width = self.original.graph.input.shape[1:]
        return (height, width)

    def _cut(self, enough: Callable[[NDArray[np.bool_]], bool]) -> NDArray[np.bool_]:
        """The classes to remove so that ``enough`` is gone after rounding."""
        graph, channels = self.here.graph, self.here.channels
        assert self.orders is not None
        orders = self.orders
        ledger = open_ledger(graph, channels, orders, self.mission.indices, self.param_weight)

        def rounded(gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return round_up(graph, channels, orders, gone, self.round_to)

        return rounded(cut_to_size(channels, ledger, lambda gone: enough(rounded(gone))))

    def _candidate(self, gone: NDArray[np.bool_]) -> _Candidate:
        """Refit and judge the network without the classes ``gone``, at the present size."""
        here = self.here
        plan = channel_plan(here.graph, here.channels, gone, self.mission.indices)
        graph = self._refit(plan, 0)
        scores = self._scores(graph, plan, 0)
        macs = cost(here.graph, here.channels, plan).macs
        return _Candidate(self.size, gone, plan, graph, macs, (scores,), self.judge.verdict(scores))

    def _refit(self, plan: Plan, fold: int) -> Graph:
        """The network at the present size, fitted on the images that do not judge in ``fold``."""
        fitted_on = 1 - fold
        if fold not in self.teachers:
            self.teachers[fold] = self._teacher(*(_judges(s)[fitted_on] for s in self._both()))
        return compensate(
            self.here.graph,
            self.here.channels,
            plan,
            self.teachers[fold],
            _judges(self.here)[fitted_on],
            max_bytes=2 * _BYTES,
        )

    def _scores(self, graph: Graph, plan: Plan, fold: int) -> Tensor:
        """Of a refitted network on the images that judge in ``fold``."""
        small = compact(graph, self.here.channels, Plan(plan.keep))
        return masked_scores(small, _judges(self.here)[fold], {})

    def _both(self) -> tuple[Sized, Sized]:
        """The network at the original size and at the present one."""
        return self.original, self.here

    def _teacher(self, x_original: Tensor, x_here: Tensor) -> Teacher:
        """What layers are to say of images, which come at the original and at the present size."""
        here = self.here.graph
        if self.learns_from_original_size:
            return teach(self.original.graph, here, x_original, max_bytes=_BYTES, seed=self.seed)
        return teach(here, here, x_here, max_bytes=_BYTES, seed=self.seed)

    def finish(self, chosen: _Candidate | None) -> Found:
        """What is returned: the chosen candidate refitted on all images, and the front."""
        if chosen is None:
            plan = Plan(outputs=self.mission.indices)
            none = (0.0,) * len(self.mission)
            same = Verdict(0.0, 0.0, none, 0.0)
            found = Found(plan, {}, {}, same, False, self.original.graph, (), self.light)
            return replace(found, front=(*self._front(None), found))
        self._go_to(chosen.size)
        here = self.here
        self.teachers.clear()
        # No more search images than statistics images: the fit is bounded in rows.
        every = max(1, round(len(here.x_search) / len(here.x_statistics)))
        x_original, x_here = (
            torch.cat([s.x_statistics, s.x_search[::every]]) for s in self._both()
        )
        graph = compensate(
            here.graph,
            here.channels,
            chosen.plan,
            self._teacher(x_original, x_here),
            x_here,
            max_bytes=2 * _BYTES,
        )
        found = Found(chosen.plan, {}, {}, chosen.verdict, True, graph, (), self.light)
        return replace(found, front=self._front(chosen, found))

    def _front(self, chosen: _Candidate | None, found: Found | None = None) -> tuple[Found, ...]:
        """The front, with the network that is returned in its place."""
        points = _front(self.done.values())
        if chosen is not None and not any(c is chosen for c in points):
            # One that is smaller and loses less on average, but too much of one class, beats it.
            points = sorted([*points, chosen], key=lambda c: c.macs)
        result = []
        for c in points:
            if found is not None and c is chosen:
                result.append(found)
            elif c.graph is not None:
                made = Found(c.plan, {}, {}, c.verdict, True, c.graph, light=self.light)
                result.append(made)
        return tuple(result)


def _judges(here: Sized) -> tuple[Tensor, Tensor]:
    """The images that judge in each fold; a fold fits on those of the other."""
    return here.x_search, here.x_statistics


def _front(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those that no other beats in both MACs and loss, the smallest network first."""
    best: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.macs, _harm(c))):
        if not best or _harm(candidate) < _harm(best[-1]):
            best.append(candidate)
    return best


def _harm(candidate: _Candidate) -> tuple[float, float]:
    return candidate.verdict.expected_loss_pp, candidate.verdict.divergence
