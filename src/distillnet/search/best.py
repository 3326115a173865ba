"""The best method: fewer channels, thinner layers, refitted, at the best input size.

A candidate is an input size and a number of MACs. Its channels and ranks follow from the orders of
elimination and the spectra of layers at one price (``allocation``); its weights from a closed-form
refit towards the original network (``compensation``), on the statistics images. It is judged on
images that its weights were not fitted on.

The sizes share the orders, which are measured once. For the first size the smallest network within
the budget is sought on a grid of MACs, by steps as long as the loss is away from the budget. Every
second size is tried beyond the best so far: the smaller ones until one fails, the larger ones all.
At last come the neighbours of the best. The network that is returned is refitted once more, on
statistics and search images together: the judgement was made with half of them, and is on the safe
side.

*Two folds.* 500 images tell an expected loss of one point to 0.3 or 0.4 points. Where that does not
decide, and statistics and search images are drawn alike, the candidate is fitted and judged the
other way round, too (see ``candidates``). What is returned has been judged by both folds.

*Whom to learn from.* A layer that sees a smaller image may be fitted to the original at its own
size or at the small one. Refitting GoogLeNet, uncut, at 160 pixels to what it says at 224 takes the
expected error on unseen images from 4.2 to 2.9 %; SqueezeNet's it raises from 4.4 to 6.2 %. So it
is tried, uncut, at the middle size, and done where it helps.

*Sizes pay for their risk.* On images that a network was trained on, a smaller input costs less than
on others, and cutting more: it still knows them by heart (docs/results.md). So a smaller input has
to save more than by what its side shrinks: a network at half the side counts as twice its work.
Where a ratio is to be reached the work is given, and sizes compare by divergence alone.

*Memory.* Images that the original was trained on exaggerate the loss: it knows them by heart, and
what is left of it does not, though on unseen images neither knew anything by heart. A network at
the original size with a fifth of the MACs cut away and refitted is as good as the original on
unseen images (docs/results.md), so what it loses on the search images is the price of forgetting.
This loss, as far as it is beyond noise and at most the budget itself, is taken off those of all
candidates. What counts is the expected loss; see ``judge.is_within``.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.graph import Graph
from distillnet.images.preprocessing import Size
from distillnet.refit.compensation import with_biases
from distillnet.search.allocation import Cut, channel_plan
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate, Importance, Sized, Workshop
from distillnet.search.found import Found
from distillnet.search.judge import Verdict, is_sure, is_within, room

__all__ = ["search_best"]

_STEP = 1.06  # between neighbouring numbers of MACs
_STRIDE, _FINE = 8, 2  # of those steps, at most and at least; the best size is refined to one step
_GROWTH = 0.1  # of the log of the expected loss, by step
_FIRST = 21  # steps: 3.4 times fewer MACs
_LIGHT = 4  # steps: 1.26 times fewer MACs
_TRIALS = 18  # about as many candidates are tried; for progress only

Progress = Callable[[int, int], None]


def search_best(
    sized: Callable[[Size], Sized],
    sizes: Sequence[Size],
    mission: Mission,
    labels_n: Tensor,
    budget: Budget,
    *,
    labels_statistics_n: Tensor | None = None,
    importance: Importance | None = None,
    split: bool = True,
    round_to: int = 1,
    param_weight: float = 0.1,
    element: float = 0.0,
    seed: int = 0,
    on_progress: Progress = lambda done, total: None,
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
        split: whether layers may be written as two thinner ones; see ``search.splits``.
        round_to: ranks are multiples of this, channels of each layer are rounded up to one.
        param_weight: how much parameters count beside MACs; see ``allocation.open_ledger``.
        element: MACs that take as long as writing one number; see ``cost.class_work``. 0 makes the
            network of fewest MACs, another value that of least time.
    """
    if labels_statistics_n is not None:
        labels_n = torch.cat([labels_statistics_n, labels_n])
    workshop = Workshop(
        sized,
        sizes[0],
        mission,
        labels_n,
        importance,
        split=split,
        round_to=round_to,
        param_weight=param_weight,
        element=element,
        seed=seed,
    )
    search = _Search(workshop, budget, on_progress)
    reach = budget.target_macs or budget.target_params
    chosen = search.reach(sizes) if reach else search.smallest(sizes)
    on_progress(_TRIALS - 1, _TRIALS)
    found = search.finish(chosen)
    on_progress(_TRIALS, _TRIALS)
    return found


class _Search:
    """Which candidates to make; ``done`` holds them by input size and number of MACs."""

    def __init__(self, workshop: Workshop, budget: Budget, on_progress: Progress) -> None:
        self.workshop, self.budget, self.on_progress = workshop, budget, on_progress
        self.done: dict[tuple[Size, int], Candidate] = {}
        self.impossible: set[tuple[Size, int]] = set()
        self.uncut: dict[Size, float] = {}  # work
        self.light: Verdict | None = None
        self.missed = False  # a target that cannot be reached

    def smallest(self, sizes: Sequence[Size]) -> Candidate | None:
        """The candidate of fewest MACs within the budget, None where there is none."""
        coarse = sizes[::2]
        first = len(coarse) // 2  # neither the largest nor the smallest
        self.workshop.go_to(coarse[first])  # where the orders are measured
        lightly_cut = (self.workshop.original_size, _LIGHT)
        if self._try(*lightly_cut):
            self.light = self._judged_by_all(lightly_cut).verdict
        self.workshop.go_to(coarse[first])
        self.workshop.choose_teacher()
        level = self._climb(coarse[first], _FIRST)
        for way in (coarse[first + 1 :], coarse[first - 1 :: -1] if first else ()):
            for size in way:
                if level is None:  # nothing fits here: less so at smaller sizes, perhaps at larger
                    if size > coarse[first]:
                        level = self._climb(size, _STRIDE)
                    continue
                if self._fits(size, level + _FINE):
                    level = self._climb(size, level + _FINE)
                elif size < coarse[first]:  # what is lost grows as sizes fall
                    break
        if level is not None:
            self._refine(sizes, level)
        return self._confirmed()

    def _refine(self, sizes: Sequence[Size], level: int) -> None:
        """Try the sizes beside the best, and one last fine step."""
        best = self._smallest_so_far()
        assert best is not None
        at = list(sizes).index(best.size)
        for size in (*sizes[at + 1 : at + 2], *sizes[max(0, at - 1) : at]):
            if self._fits(size, level + 1):
                level = self._climb(size, level + 1) or level
        best = self._smallest_so_far()
        assert best is not None
        self._fits(best.size, level + 1)

    def _confirmed(self) -> Candidate | None:
        """The smallest within the budget by the verdict of all folds: one fold may be lucky."""
        while (best := self._smallest_so_far()) is not None:
            key = next(key for key, candidate in self.done.items() if candidate is best)
            if self._allows(confirmed := self._judged_by_all(key)):
                return confirmed
        return None

    def _smallest_so_far(self) -> Candidate | None:
        fitting = [c for c in self.done.values() if self._allows(c)]
        return min(
            fitting, key=lambda c: (self._counted_work(c), c.verdict.divergence), default=None
        )

    def _climb(self, size: Size, start: int) -> int | None:
        """The highest level that fits at a size, sought from ``start``; None where none does."""
        low, high, level = 0, math.inf, start
        while high - low > _FINE:
            fits = self._fits(size, level)
            low, high = (level, high) if fits else (low, level)
            step = self._steps_to_budget(size, level)
            step = max(step, _FINE) if fits else min(step, -_FINE)
            level = int(max(low + _FINE, min(level + step, high - _FINE)))
        return low or None

    def _steps_to_budget(self, size: Size, level: int) -> int:
        """By how many levels a candidate that was tried is away from the budget, about."""
        candidate = self.done.get((size, level)) or self.done.get((size, 0))
        if candidate is None:  # could not be made
            return -_STRIDE
        left = room(self.budget, candidate.verdict, self.light)
        steps = _FINE * round(math.log(left) / _GROWTH / _FINE)
        return max(-_STRIDE, min(steps, _STRIDE))

    def _fits(self, size: Size, level: int) -> bool:
        if self._uncut_work(size) <= self._allowed(size, level):
            level = 0  # the size alone gets there: one candidate for all such levels
        candidate = self._try(size, level)
        if candidate is None:
            return False
        while not (
            is_sure(self.budget, candidate.verdict, self.light)
            or self.workshop.is_judged_by_all(candidate)
        ):
            candidate = self._judged_by_one_more((size, level))
        return self._allows(candidate)

    def _allowed(self, size: Size, level: int) -> float:
        """MACs, or what stands for time; level 0 is the network uncut at its own size."""
        return self.workshop.work / _STEP**level / self._risk(size)

    def _counted_work(self, candidate: Candidate) -> float:
        return candidate.work * self._risk(candidate.size)

    def _risk(self, size: Size) -> float:
        """By what work at an input size counts for more; see the module's text."""
        return math.sqrt(math.prod(self.workshop.original_size) / math.prod(size))

    def _uncut_work(self, size: Size) -> float:
        if size not in self.uncut:
            self.workshop.go_to(size)
            nothing = np.zeros(self.workshop.here.channels.count, dtype=bool)
            self.uncut[size] = self.workshop.work_left(Cut(nothing))
        return self.uncut[size]

    def _allows(self, candidate: Candidate) -> bool:
        return is_within(self.budget, candidate.verdict, self.light)

    def _try(self, size: Size, level: int) -> Candidate | None:
        """The candidate with the MACs that a level allows; None where it cannot be made."""
        if (size, level) in self.impossible:
            return None
        if (size, level) not in self.done:
            allowed = self._allowed(size, level)
            self.workshop.go_to(size)
            candidate = self.workshop.make(lambda cut: self.workshop.work_left(cut) <= allowed)
            if candidate is None:
                self.impossible.add((size, level))
                return None
            self.done[size, level] = candidate
            self._forget_weights()
            self.on_progress(min(len(self.done), _TRIALS - 2), _TRIALS)
        return self.done[size, level]

    def _judged_by_all(self, key: tuple[Size, int]) -> Candidate:
        while not self.workshop.is_judged_by_all(self.done[key]):
            self._judged_by_one_more(key)
        return self.done[key]

    def _judged_by_one_more(self, key: tuple[Size, int]) -> Candidate:
        self.done[key] = self.workshop.judged_by_one_more(self.done[key])
        self._forget_weights()
        return self.done[key]

    def _forget_weights(self) -> None:
        """Let go of the weights of candidates that another beats in MACs and loss."""
        front = _front(self.done.values(), self._counted_work)
        for key, candidate in list(self.done.items()):
            if candidate.graph is not None and not any(candidate is c for c in front):
                self.done[key] = replace(candidate, graph=None)

    def reach(self, sizes: Sequence[Size]) -> Candidate:
        """The candidate of least divergence, by all folds, that reaches the ratio asked for."""
        workshop, budget = self.workshop, self.budget
        total = cost(workshop.original.graph, workshop.original.channels)
        if budget.target_params:
            sizes = sizes[:1]  # a smaller image needs no fewer
        workshop.go_to(sizes[len(sizes) // 2])
        workshop.choose_teacher()
        reached = []
        for i, size in enumerate(sizes):
            workshop.go_to(size)
            here = workshop.here
            fitted = with_biases(here.graph)

            def enough(cut: Cut, here: Sized = here, fitted: Graph = fitted) -> bool:
                plan = channel_plan(here.graph, here.channels, cut, workshop.mission.indices)
                left = cost(fitted, here.channels, plan)
                if budget.target_macs:
                    return total.macs / left.macs >= budget.target_macs
                return total.params / left.params >= (budget.target_params or 1)

            candidate = workshop.make(enough)
            if candidate is not None:
                reached.append((size, 0))
            self.done[size, 0] = candidate or workshop.make_smallest()
            self._forget_weights()
            self.on_progress(min(i + 1, _TRIALS - 2), _TRIALS)
        while reached:  # one fold may be lucky
            best = min(reached, key=lambda key: self.done[key].verdict.divergence)
            if self.workshop.is_judged_by_all(self.done[best]):
                return self.done[best]
            self._judged_by_one_more(best)
        self.missed = True
        return min(self.done.values(), key=lambda c: c.work)

    def finish(self, chosen: Candidate | None) -> Found:
        """What is returned: the chosen candidate refitted on all images, and the front."""
        if chosen is None:
            mission = self.workshop.mission
            same = Verdict(0.0, 0.0, (0.0,) * len(mission), 0.0)
            graph = self.workshop.original.graph
            found = Found(Plan(outputs=mission.indices), {}, {}, same, False, graph, (), self.light)
            return replace(found, front=(*self._front(None), found))
        graph = self.workshop.refit_on_all(chosen)
        found = Found(chosen.plan, {}, {}, chosen.verdict, not self.missed, graph, (), self.light)
        return replace(found, front=self._front(chosen, found))

    def _front(self, chosen: Candidate | None, found: Found | None = None) -> tuple[Found, ...]:
        """The front, with the network that is returned in its place."""
        points = _front(self.done.values(), self._counted_work)
        if chosen is not None and not any(c is chosen for c in points):
            # One that is smaller and loses less on average, but too much of one class, beats it.
            points = sorted([*points, chosen], key=self._counted_work)
        result = []
        for c in points:
            if found is not None and c is chosen:
                result.append(found)
            elif c.graph is not None:
                met = self._allows(c)
                made = Found(c.plan, {}, {}, c.verdict, met, c.graph, light=self.light)
                result.append(made)
        return tuple(result)


def _front(candidates: Iterable[Candidate], work: Callable[[Candidate], float]) -> list[Candidate]:
    """Those that no other beats in both work and loss, the smallest network first."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (work(c), _harm(c))):
        if not best or _harm(candidate) < _harm(best[-1]):
            best.append(candidate)
    return best


def _harm(candidate: Candidate) -> tuple[float, float]:
    return candidate.verdict.expected_loss_pp, candidate.verdict.divergence
