"""Tuning what a search found, and how far the search may go for that.

A short distillation (``refit.tune``) wins back a part of what a cut network loses. So with --tune
a search gets a larger budget: one from which tuning, if it leaves the usual share of a loss, leads
back into the real one. The smallest of its networks that can be expected to get there is tuned, and
held-out images show what has changed. If the tuned network is not within the real budget, a larger
one is tuned: the first that should get there if tuning helps as much as it has so far. If none gets
there, the search is asked again, with the real budget. If the tuned network is within the budget
and tuning gained more than usual, the search goes on with as much more to spend.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillnet.job.pictures import Pictures
from distillnet.job.school import School
from distillnet.refit.tune import TuneSettings
from distillnet.search import Budget, Found, Verdict, is_within
from distillnet.search.decision import likelihood, objection
from distillnet.search.usual import Usual

__all__ = ["Choice", "choose", "provisional", "search_and_tune"]

Tried = tuple[Verdict, Verdict]  # before and after tuning

_MOST_TUNED = 3  # networks of a search
_WORTH_MORE = 1.05  # times the budget, for which a search goes on
_LEAST_LESS = 0.02  # of the work, for which another network is tuned
# What tuning leaves of a loss, before it was tried, and how much that weighs: as much as one try
# with a network that loses a point. And by how much it varies: a share of the loss and of a point
# more (docs/results.md).
_USUALLY_LEFT, _WEIGHT_PP, _VARIES = 0.75, 1.0, 0.2
# That the search may spend where tuning follows: what is left of it is within one, and as certain
# as before although tuning varies, for standard errors of half a point or so.
_BUDGETS = 1.2
_LEAST_PP = 0.01


@dataclass(frozen=True)
class Choice:
    """A network of a search, with what is expected of it.

    Attributes:
        found: as it is to be returned, its front included; ``met`` where it is within the budget.
        trains: whether it is to be tuned: that makes it better.
        tried: verdicts before and after tuning, on all networks that were tried so far.
    """

    found: Found
    trains: bool = False
    tried: tuple[Tried, ...] = ()


def provisional(budget: Budget, left: float = _USUALLY_LEFT) -> Budget:
    """The budget for a search whose result is to be tuned.

    Args:
        left: what tuning leaves of a loss, as a share.

    >>> provisional(Budget(1.0)).max_loss_pp
    1.2
    """
    if budget.has_target:
        return budget
    more = max(1.0, _BUDGETS * _USUALLY_LEFT / left)

    def wider(points: float) -> float:
        return min(100.0, float(f"{more * points:.3g}"))  # as people are told

    loss_pp, class_loss_pp = wider(budget.max_loss_pp), wider(budget.class_limit_pp)
    return replace(budget, max_loss_pp=loss_pp, max_class_loss_pp=class_loss_pp)


def search_and_tune(
    search: Callable[[Budget], Found],
    pictures: Pictures,
    budget: Budget,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Found, float]:
    """What is found with tuning in view, tuned; and the seconds that tuning took.

    Args:
        search: remembers what it made for one budget when it is asked for another.
    """
    networks = 1 if budget.has_target else 2 * _MOST_TUNED
    school = School(pictures, TuneSettings(seed=seed), on_progress, networks)
    chosen = _choose(search, school, budget)
    found = chosen.found
    if chosen.trains:
        tuned = school.tuned(found)
        front = (replace(p, tuned=tuned) if p.plan is found.plan else p for p in found.front)
        found = replace(found, tuned=tuned, front=tuple(front))
    school.finish()
    return found, school.seconds


def _choose(search: Callable[[Budget], Found], school: School, budget: Budget) -> Choice:
    """What to return, of all that searches with tuning in view find."""
    wide = provisional(budget)
    first = choose(_in_view(search(wide), wide, budget), school, budget)
    if wide == budget:
        return first
    if not (first.found.met and first.trains):
        return choose(search(budget), school, budget, tried=first.tried)
    wider = provisional(budget, _left(first.tried))
    if wider.max_loss_pp <= _WORTH_MORE * wide.max_loss_pp:
        return first
    most = first.found.work * (1 - _LEAST_LESS)
    more = choose(_in_view(search(wider), wider, budget), school, budget, most, first.tried)
    if more.found.met and more.trains:
        return more
    return replace(first, found=replace(first.found, stopped_by=more.found.stopped_by))


def _in_view(found: Found, wide: Budget, budget: Budget) -> Found:
    """What a search with a provisional budget found; why it stopped is told with both budgets."""
    if wide == budget or "expected" not in found.stopped_by:
        return found
    widened = f"{wide.max_loss_pp:g} points instead of {budget.max_loss_pp:g}"
    return replace(found, stopped_by=f"{found.stopped_by} (before tuning, the budget is {widened})")


def choose(
    found: Found,
    school: School,
    budget: Budget,
    most: float = math.inf,
    tried: Sequence[Tried] = (),
) -> Choice:
    """The smallest network of a front that is within the budget, once tuned.

    At most three are tried. Where none of them is within the budget, what was found is chosen as
    it came.

    Args:
        found: of a search with a ``provisional`` budget; what it returned is the smallest to try.
        budget: the real one.
        most: only networks of no more work than this are tried.
        tried: verdicts before and after tuning, on earlier networks.
    """
    aims, earlier, tried = budget.has_target, len(tried), tuple(tried)
    front = [replace(point, met=_is_met(budget, point)) for point in found.front]
    points = front or [found]
    at: int | None = next(i for i, point in enumerate(points) if point.plan is found.plan)
    assert at is not None
    if not points[at].plan.keep:  # nothing was removed
        same = replace(points[at], front=tuple(front), stopped_by=found.stopped_by)
        return Choice(same, tried=tried)
    why = found.stopped_by
    if not aims:
        at = _next(points, at, tried, budget)
    while at is not None and points[at].work <= most:
        before, after = points[at], _promised(points[at], school, budget)
        tried = (*tried, (before.verdict, after.verdict))
        if aims or after.met:
            points[at] = replace(after, met=found.met if aims else after.met, stopped_by=why)
            chosen = replace(points[at], front=tuple(points) if front else ())
            return Choice(chosen, after.verdict is not before.verdict, tried)
        why = f"a smaller network, tuned: {objection(budget, after.verdict)}"
        at = _next(points, at + 1, tried, budget) if len(tried) - earlier < _MOST_TUNED else None
    found = replace(found, front=tuple(front), met=_is_met(budget, found), stopped_by=why)
    return Choice(found, tried=tried)


def _is_met(budget: Budget, point: Found) -> bool:
    return bool(point.plan.keep) and is_within(budget, point.verdict)


def _next(points: Sequence[Found], at: int, tried: Sequence[Tried], budget: Budget) -> int | None:
    """The position, from ``at`` on, of the first network that tuning may bring within the budget.

    None where there is none.

    Args:
        tried: verdicts on networks before and after they were tuned.
    """
    left = _left(tried)
    for i in range(at, len(points)):
        before_pp = points[i].verdict.estimate_pp
        hoped = points[i].verdict.raised(left - 1).less_certain(_varies(before_pp))
        if points[i].plan.keep and is_within(budget, hoped):
            return i
    return None


def _left(tried: Sequence[Tried]) -> float:
    """What tuning leaves of a loss, as a share: what is usual and what was found, as one.

    >>> _left([])
    0.75
    """
    lost, left = _WEIGHT_PP, _USUALLY_LEFT * _WEIGHT_PP
    for before, after in tried:
        if before.estimate_pp > 0:
            lost += before.estimate_pp
            left += max(0.0, after.estimate_pp)
    return min(1.0, left / lost)


def _promised(point: Found, school: School, budget: Budget) -> Found:
    """A network with the verdict on what tuning will make of it; as it was where that is no better.

    It is also returned as it was if it is within the budget and probably would not be after tuning.
    No more fifths are tried once the chance of success falls below 1 - ``budget.confidence``.
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
