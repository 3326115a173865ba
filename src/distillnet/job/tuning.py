"""Tuning what a search found, and how far the search may go for that.

A short distillation (``refit.tune``) wins back a part of what a cut network loses. So with --tune
a search gets a larger budget: one from which tuning, if it leaves the usual share of a loss, leads
back into the real one. The smallest of its networks is tuned, and held-out images show what has
changed (``job.promises``). By that the search is asked for another: a larger network where the
tuned one is not within the real budget, and a smaller one where it is, halfway to what was too
small, or as far as tuning is seen to help. If none gets there, the search is asked with the real
budget. The search remembers what it made, so that most of the time goes into trainings: of four
networks at most. The one that is returned is tuned on all images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distillnet.job.pictures import Pictures
from distillnet.job.promises import USUALLY_LEFT, Tried, hoped, left_by, promised
from distillnet.job.school import School
from distillnet.refit.tune import TuneSettings
from distillnet.search import Budget, Found, Verdict, is_within
from distillnet.search.decision import objection

__all__ = ["Attempt", "needed", "next_times", "search_and_tune", "spending"]

_MOST_TUNED = 4  # networks
_STEP = 0.1  # of the budget, at least, that the next network loses less than one that lost too much
_WORTH, _MOST_FURTHER = 1.07, 2.0  # times as much, at least and at most, for which a search goes on
# That the search may spend where tuning follows: what is left of it is within one, and as certain
# as before although tuning varies, for standard errors of half a point or so.
_TIMES = 1.2
_FAR = 100.0  # times the budget: nowhere near it


@dataclass(frozen=True)
class Attempt:
    """What a search found within a multiple of the budget, and what is expected of it once tuned.

    Attributes:
        times: the budget that the search might spend.
        found: before tuning; ``met`` where that is within the real budget, of its front, too.
        after: the network as it is best returned: with the verdict on what tuning will make of it,
            or as it was found.
        expected: what was found of the network once tuned, or is hoped where that was not tried.
        tried: whether it was tuned to tell.
    """

    times: float
    found: Found
    after: Found
    expected: Verdict
    tried: bool = False

    @property
    def trains(self) -> bool:
        """Whether the network is to be tuned: that makes it better."""
        return self.after.verdict is not self.found.verdict

    @property
    def pair(self) -> Tried:
        """Verdicts before and after tuning, which is the same where that makes it no better."""
        return self.found.verdict, self.after.verdict


def spending(budget: Budget, times: float) -> Budget:
    """Another budget, so many times as large.

    >>> spending(Budget(1.0), 1.2).max_loss_pp
    1.2
    """
    if times == 1.0:
        return budget
    loss_pp, class_pp = (
        min(100.0, times * pp) for pp in (budget.max_loss_pp, budget.class_limit_pp)
    )
    return replace(budget, max_loss_pp=loss_pp, max_class_loss_pp=class_pp)


def needed(budget: Budget, verdict: Verdict) -> float:
    """The least multiple of a budget that a verdict is within; infinite where it is far beyond.

    >>> surely = Verdict(0.0, 0.0, (0.0,), 0.0, estimate_pp=1.5, class_estimates_pp=(1.5,))
    >>> round(needed(Budget(1.0), surely), 2)
    1.5
    """
    low, high = 0.0, _FAR
    if budget.max_loss_pp == 0 or not is_within(spending(budget, high), verdict):
        return math.inf
    for _ in range(30):
        middle = (low + high) / 2
        met = is_within(spending(budget, middle), verdict)
        low, high = (low, middle) if met else (middle, high)
    return high


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
    networks = 1 if budget.has_target else _MOST_TUNED
    school = School(pictures, TuneSettings(seed=seed), on_progress, networks)
    closing_in = _reaching if budget.has_target else _closing_in
    attempts = closing_in(search, school, budget)
    chosen = _best(attempts)
    found = replace(chosen.after, stopped_by=_stopped_by(chosen, attempts, budget))
    if chosen.trains:
        found = replace(found, tuned=school.tuned(found))
    front = (found if p.plan is found.plan else p for p in chosen.found.front)
    found = replace(found, front=tuple(replace(point, front=()) for point in front))
    school.finish()
    return found, school.seconds


def _reaching(search: Callable[[Budget], Found], school: School, budget: Budget) -> list[Attempt]:
    """The one attempt at a ratio: whatever its network loses, it is tuned where that helps."""
    found = search(budget)
    if not found.plan.keep:
        return [Attempt(1.0, found, found, found.verdict)]
    after, expected = promised(found, school, budget)
    return [Attempt(1.0, found, replace(after, met=found.met), expected, tried=True)]


def _closing_in(search: Callable[[Budget], Found], school: School, budget: Budget) -> list[Attempt]:
    """Attempts within multiples of the budget, each chosen by what became of those before it."""
    attempts: list[Attempt] = []
    while (times := next_times(attempts, budget)) is not None:
        attempts.append(_attempt(search(spending(budget, times)), times, attempts, school, budget))
    return attempts


def next_times(attempts: Sequence[Attempt], budget: Budget) -> float | None:
    """How many times the budget a search may spend next; None where no more is to be won.

    In hundredths, as people are told.

    Args:
        attempts: those that were made so far.

    >>> next_times([], Budget(1.0))
    1.2
    """
    tried = [attempt.pair for attempt in attempts if attempt.tried]
    left = left_by(tried)
    usual = max(1.0, _TIMES * USUALLY_LEFT / left)
    if budget.max_loss_pp == 0:  # of which there is no more
        return None if attempts else 1.0
    if not attempts:
        return usual
    failed = [attempt for attempt in attempts if not _may_do(attempt, tried, budget)]
    high = min([min(a.times, needed(budget, a.found.verdict)) for a in failed], default=math.inf)
    if any(attempt.after.met for attempt in attempts):
        best = _best(attempts)
        left_over = 1.0 - needed(budget, best.expected)
        further = needed(budget, best.found.verdict) + left_over / left
        wanted = min(max(usual, further), _MOST_FURTHER * best.times, (best.times + high) / 2)
        goes_on = len(tried) < _MOST_TUNED and wanted >= _WORTH * best.times
        return round(wanted, 2) if goes_on else None
    if attempts[-1].times == 1.0:
        return None
    beyond = needed(budget, attempts[-1].expected) - 1.0
    wanted = min(usual, high - max(_STEP, beyond / left))
    return round(wanted, 2) if len(tried) + 1 < _MOST_TUNED and wanted >= _WORTH else 1.0


def _attempt(
    found: Found, times: float, before: Sequence[Attempt], school: School, budget: Budget
) -> Attempt:
    """What becomes of a network that was found, which is tuned where that gives hope."""
    front = tuple(replace(point, met=_is_met(budget, point)) for point in found.front)
    for known in before:
        if known.tried and known.found.plan is found.plan:  # with the verdicts of then
            same = replace(known.found, front=front, stopped_by=found.stopped_by)
            return replace(known, times=times, found=same, after=replace(known.after, front=front))
    found = replace(found, met=_is_met(budget, found), front=front)
    hope = hoped(found.verdict, [attempt.pair for attempt in before if attempt.tried])
    if not (found.plan.keep and is_within(budget, hope)):
        return Attempt(times, found, found, hope)
    after, expected = promised(found, school, budget)
    return Attempt(times, found, after, expected, tried=True)


def _may_do(attempt: Attempt, tried: Sequence[Tried], budget: Budget) -> bool:
    """Whether a network is within the budget, or may be once it is tuned."""
    if attempt.tried or not attempt.found.plan.keep:
        return attempt.after.met
    return attempt.after.met or is_within(budget, hoped(attempt.found.verdict, tried))


def _is_met(budget: Budget, point: Found) -> bool:
    return bool(point.plan.keep) and is_within(budget, point.verdict)


def _best(attempts: Sequence[Attempt]) -> Attempt:
    """The smallest network within the budget, as it was found last, else the last one."""
    met = [attempt for attempt in reversed(attempts) if attempt.after.met]
    return min(met, key=lambda attempt: attempt.found.work, default=attempts[-1])


def _stopped_by(chosen: Attempt, attempts: Sequence[Attempt], budget: Budget) -> str:
    """What kept the search from a smaller network: one that was tuned, or what it says itself."""
    smaller = [a for a in attempts if a.tried and a.found.work < chosen.found.work]
    if smaller:
        nearest = max(smaller, key=lambda attempt: attempt.found.work)
        return f"a smaller network, tuned: {objection(budget, nearest.expected)}"
    last, spent = attempts[-1], spending(budget, attempts[-1].times)
    if spent.max_loss_pp == budget.max_loss_pp or "expected" not in last.found.stopped_by:
        return last.found.stopped_by
    widened = f"{spent.max_loss_pp:g} points instead of {budget.max_loss_pp:g}"
    return f"{last.found.stopped_by} (before tuning, the budget is {widened})"
