"""Tuning what a search found, and how far the search may go for that.

A short distillation (``refit.tune``) wins back a part of what a cut network loses. So with --tune
a second search is given a larger budget: what is within the real one when tuning has left of a loss
what it usually leaves. Of its networks that are smaller than what a search within the budget finds,
the smallest is tuned that seems to get there so, and held-out images tell what that has changed.
Where it is within the real budget then, it is returned; else a larger one is tuned, the first that
seems to get there by as much as was won before; and at last what the search within the budget
found.

*The estimate* of a tuned network comes from cross-validation: for some fifths of the images the
network is fitted and tuned without them, and they judge. It is twofold. That of the search, on all
images, and the change that tuning makes on those left out, is precise where little changes; few
images say little of a change, so it is drawn to what tuning usually changes. What they say of the
tuned network alone is precise where little is lost. Both are mixed by their precision. They are not
independent, and images that spoke against the network before tuning make the change look better and
the search's estimate worse: the interval is rather too wide. Of images that the original was
trained on only the change counts: what it knows by heart, both networks have lost. The network that
is returned is tuned on all images.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from distillnet.graph import Graph
from distillnet.graph.replay import masked_scores
from distillnet.job.pictures import Pictures
from distillnet.refit.tune import Lessons, TuneSettings, prepare, tune
from distillnet.search import Budget, Found, Judge, Verdict, is_within
from distillnet.search.decision import likelihood, objection
from distillnet.search.usual import Usual

__all__ = ["School", "provisional", "search_and_tune", "tune_found"]

_MOST_TUNED = 3  # networks
# What tuning leaves of a loss, before it was tried, and how much that weighs: as much as one try
# with a network that loses a point. And by how much it varies: a share of the loss and of a point
# more (docs/results.md).
_USUALLY_LEFT, _WEIGHT_PP, _VARIES = 0.75, 1.0, 0.2
# That the search may spend where tuning follows: what is left of it is within one, and as certain
# as before although tuning varies, for standard errors of half a point or so.
_BUDGETS = 1.2
_FOLDS = TuneSettings.groups  # no training sees a fold that it leaves out, not in a mixture
# Images that are enough to judge by, and folds at most: hundreds more would not tell so small a
# change much better than what is usual does, and each fold is a training.
_CROSSED_IMAGES, _MOST_CROSSED = 200, 2
_LEAST_PP = 0.01


def provisional(budget: Budget) -> Budget:
    """What a search may spend that tuning follows.

    >>> provisional(Budget(1.0)).max_loss_pp
    1.2
    """
    if budget.has_target:
        return budget
    return replace(
        budget,
        max_loss_pp=min(100.0, _BUDGETS * budget.max_loss_pp),
        max_class_loss_pp=min(100.0, _BUDGETS * budget.class_limit_pp),
    )


def search_and_tune(
    search: Callable[[Budget], Found],
    pictures: Pictures,
    budget: Budget,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Found, float]:
    """What is found with tuning in view, tuned; and the seconds that tuning took.

    It is no larger than what a search within the budget finds.
    """
    networks = 1 if budget.has_target else _MOST_TUNED + 1
    school = School(pictures, TuneSettings(seed=seed), on_progress, networks)
    wide, tries = provisional(budget), [(budget, math.inf)]
    if wide != budget:
        # What is found is not kept, as it holds what its weights were fitted on; the store has it.
        tries.insert(0, (wide, search(budget).work))
    seconds = 0.0
    for spent, most in tries:
        found = search(spent)
        start = time.perf_counter()
        found = tune_found(found, school, budget, most)
        seconds += time.perf_counter() - start
        if found.met:
            break
    school.finish()
    return found, seconds


def tune_found(found: Found, school: "School", budget: Budget, most: float = math.inf) -> Found:
    """The smallest network of a front that is within the budget when it is tuned.

    At most three are tuned. Where none of them is within the budget, what was found is returned as
    it came, and is not ``met``.

    Args:
        found: of a search with a ``provisional`` budget; what it returned is the smallest to try.
        budget: the real one.
        most: only networks of no more work than this are tried.
    """
    aims = budget.has_target
    front = [replace(point, met=_is_met(budget, point)) for point in found.front]
    points = front or [found]
    at: int | None = next(i for i, point in enumerate(points) if point.plan is found.plan)
    assert at is not None
    if not points[at].plan.keep:  # nothing was removed
        return replace(points[at], front=tuple(front), stopped_by=found.stopped_by)
    tried: list[tuple[Verdict, Verdict]] = []
    why = found.stopped_by
    if not aims:
        at = _next(points, at, tried, budget)
    while at is not None and points[at].work <= most:
        before, after = points[at], _promised(points[at], school, budget)
        if aims or after.met:
            if after.verdict is not before.verdict:
                after = replace(after, tuned=school.tuned(after))
            points[at] = replace(after, met=found.met if aims else after.met, stopped_by=why)
            return replace(points[at], front=tuple(points) if front else ())
        tried.append((before.verdict, after.verdict))
        why = f"a smaller network, tuned: {objection(budget, after.verdict)}"
        at = _next(points, at + 1, tried, budget) if len(tried) < _MOST_TUNED else None
    return replace(found, front=tuple(front), met=False)


def _is_met(budget: Budget, point: Found) -> bool:
    return bool(point.plan.keep) and is_within(budget, point.verdict)


def _next(
    points: Sequence[Found], at: int, tried: Sequence[tuple[Verdict, Verdict]], budget: Budget
) -> int | None:
    """The position, from ``at`` on, of the first network that tuning may bring within the budget.

    None where there is none.

    Args:
        tried: verdicts on networks before and after they were tuned.
    """
    lost, left = _WEIGHT_PP, _USUALLY_LEFT * _WEIGHT_PP
    for before, after in tried:
        if before.estimate_pp > 0:
            lost += before.estimate_pp
            left += max(0.0, after.estimate_pp)
    for i in range(at, len(points)):
        before_pp = points[i].verdict.estimate_pp
        hoped = points[i].verdict.raised(min(1.0, left / lost) - 1).less_certain(_varies(before_pp))
        if points[i].plan.keep and is_within(budget, hoped):
            return i
    return None


def _promised(point: Found, school: "School", budget: Budget) -> Found:
    """A network with the verdict on what tuning will make of it; as it was where that is no better.

    Nor where it is within the budget and, for all that is known, would not be after tuning. No more
    fifths are asked where those before make it unlikely: as unlikely as it has to be likely.
    """
    for change, alone in school.cross_validate(point):
        verdict = _changed(point.verdict, _drawn(change, point.verdict.estimate_pp))
        if not point.seen:
            verdict = _together(verdict, alone)
        if likelihood(budget, verdict) < 1 - budget.confidence:
            break
    met = is_within(budget, verdict)
    if verdict.estimate_pp >= point.verdict.estimate_pp or (point.met and not met):
        return point
    return replace(point, verdict=verdict, met=met)


class School:
    """Tunes so many networks at most, and judges what comes of it by images that were left out."""

    def __init__(
        self,
        pictures: Pictures,
        settings: TuneSettings,
        on_progress: Callable[[int, int], None],
        networks: int,
    ) -> None:
        self.pictures, self.settings, self.on_progress = pictures, settings, on_progress
        self.own = pictures.sized(pictures.own_size)
        self.n = len(self.own.x_nchw)
        self.lessons: Lessons | None = None  # which take the longest, and are the same for all
        labels_n, statistics = pictures.labels(), pictures.labels_statistics()
        self.first = self.own.n_statistics if statistics is None else 0  # that has a say
        self.labels_n = labels_n if statistics is None else torch.cat([statistics, labels_n])
        wanted = math.ceil(_FOLDS * _CROSSED_IMAGES / len(self.labels_n))
        self.crossed = min(wanted, _MOST_CROSSED, len(self.labels_n))
        self.trained, self.trainings = 0, networks * self.crossed + 1  # at most

    def cross_validate(self, point: Found) -> Iterator[tuple[Verdict, Verdict]]:
        """What tuning changes, and what is lost beside the original, on images left out of it.

        Yields:
            After each fifth of the images, by all that were left out so far.
        """
        here = self.pictures.sized(self.pictures.size_of(point))
        held_out, before, after = [], [], []
        for fold in range(self.crossed):
            images = torch.arange(self.first + fold, self.n, _FOLDS)
            is_held_out = torch.zeros(self.n, dtype=torch.bool)
            is_held_out[images] = True
            student = point.compact_without(is_held_out)
            tuned = self._tune(student, here.x_nchw, torch.nonzero(~is_held_out)[:, 0])
            before.append(masked_scores(student, here.x_nchw[images], {}).cpu())
            after.append(masked_scores(tuned, here.x_nchw[images], {}).cpu())
            held_out.append(images)
            yield self._verdicts(point, torch.cat(held_out), torch.cat(before), torch.cat(after))

    def _verdicts(
        self, point: Found, images: Tensor, before: Tensor, after: Tensor
    ) -> tuple[Verdict, Verdict]:
        """On the scores (N, classes) before tuning and after it, of images by position."""
        labels_n, mission = self.labels_n[images - self.first], self.pictures.mission
        original = masked_scores(self.own.graph, self.own.x_nchw[images], {}).cpu()
        shares = self.pictures.shares()
        change = Judge(before, labels_n, mission, shares=shares).verdict(after)
        alone = Judge(original, labels_n, mission, shares=shares).verdict(after)
        return change, alone

    def tuned(self, point: Found) -> Graph:
        """The compact network of a point, with all scores, tuned on all images."""
        here = self.pictures.sized(self.pictures.size_of(point))
        self.trained = self.trainings - 1
        return self._tune(point.compact(all_scores=True), here.x_nchw, torch.arange(self.n))

    def finish(self) -> None:
        """Tell that all is done."""
        self.on_progress(1, 1)

    def _tune(self, student: Graph, x_nchw: Tensor, images: Tensor) -> Graph:
        if self.lessons is None:
            own, outputs = self.own, self.pictures.mission.indices
            self.lessons = prepare(own.graph, own.x_nchw, outputs, self.settings)
        past, self.trained = self.trained, self.trained + 1

        def report(done: int, of: int) -> None:
            self.on_progress(past * of + done, self.trainings * of)

        return tune(student, self.lessons, x_nchw, images, report)


def _drawn(change: Verdict, lost_pp: float) -> Verdict:
    """A change that few images found, drawn to what is usual where so much is lost."""
    before = Usual(
        np.array([(_USUALLY_LEFT - 1) * max(0.0, lost_pp)]), np.array([_varies(lost_pp)])
    )
    noise = max(change.estimate_uncertain_pp, _LEAST_PP)
    expected, uncertain = before.drawn(np.array([change.estimate_pp]), np.array([noise]))
    less = change.estimate_pp - float(expected[0])
    return replace(
        change,
        estimate_pp=change.estimate_pp - less,
        estimate_uncertain_pp=float(uncertain[0]),
        class_estimates_pp=tuple(x - less for x in change.class_estimates_pp),
    )


def _varies(lost_pp: float) -> float:
    """The standard deviation of what tuning changes where so much is lost."""
    return _VARIES * (1 + max(0.0, lost_pp))


def _changed(verdict: Verdict, change: Verdict) -> Verdict:
    """A verdict on all images, and what has changed since on some of them."""
    uncertain = _USUALLY_LEFT * verdict.estimate_uncertain_pp  # of what is lost a share is won back
    return replace(
        verdict,
        loss_pp=verdict.loss_pp + change.loss_pp,
        expected_loss_pp=verdict.expected_loss_pp + change.expected_loss_pp,
        class_losses_pp=_sum(verdict.class_losses_pp, change.class_losses_pp),
        uncertain_pp=math.hypot(verdict.uncertain_pp, change.uncertain_pp),
        expected_uncertain_pp=math.hypot(
            verdict.expected_uncertain_pp, change.expected_uncertain_pp
        ),
        estimate_pp=verdict.estimate_pp + change.estimate_pp,
        estimate_uncertain_pp=math.hypot(uncertain, change.estimate_uncertain_pp),
        class_estimates_pp=_sum(verdict.class_estimates_pp, change.class_estimates_pp),
    )


def _together(changed: Verdict, alone: Verdict) -> Verdict:
    """Both estimates of a tuned network, by their precision; they are not independent."""
    precise = [max(v.estimate_uncertain_pp, _LEAST_PP) ** -2 for v in (changed, alone)]
    share = precise[0] / sum(precise)

    def mixed(one: float, two: float) -> float:
        return share * one + (1 - share) * two

    return replace(
        changed,
        divergence=alone.divergence,
        estimate_pp=mixed(changed.estimate_pp, alone.estimate_pp),
        estimate_uncertain_pp=mixed(changed.estimate_uncertain_pp, alone.estimate_uncertain_pp),
        class_estimates_pp=tuple(
            mixed(*pair)
            for pair in zip(changed.class_estimates_pp, alone.class_estimates_pp, strict=True)
        ),
    )


def _sum(one: tuple[float, ...], two: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, two, strict=True))
