"""What tuning will make of a network, as far as images that are left out of it can tell.

*The estimate* of a tuned network comes from cross-validation: for some fifths of the images the
network is fitted and tuned without them, and they judge. It is twofold. That of the search, on all
images, and the change that tuning makes on those left out, is precise where little changes; few
images say little of a change, so it is drawn to what tuning usually changes. What they say of the
tuned network alone is precise where little is lost. Both are mixed by their precision. They are not
independent, and images that spoke against the network before tuning make the change look better and
the search's estimate worse: the interval is rather too wide. Of images that the original was
trained on only the change counts: what it knows by heart, both networks have lost.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distillnet.job.school import School
from distillnet.search import Budget, Found, Verdict, is_within
from distillnet.search.decision import likelihood
from distillnet.search.usual import Usual

__all__ = ["USUALLY_LEFT", "Tried", "hoped", "left_by", "promised"]

Tried = tuple[Verdict, Verdict]  # before and after tuning

# What tuning leaves of a loss, before it was tried, and how much that weighs: as much as one try
# with a network that loses a point. And by how much it varies: a share of the loss and of a point
# more (docs/results.md).
USUALLY_LEFT, _WEIGHT_PP, _VARIES = 0.75, 1.0, 0.2
_LEAST_PP = 0.01


def left_by(tried: Sequence[Tried]) -> float:
    """What tuning leaves of a loss, as a share: what is usual and what was found, as one.

    >>> left_by([])
    0.75
    """
    lost, left = _WEIGHT_PP, USUALLY_LEFT * _WEIGHT_PP
    for before, after in tried:
        if before.estimate_pp > 0:
            lost += before.estimate_pp
            left += max(0.0, after.estimate_pp)
    return min(1.0, left / lost)


def hoped(verdict: Verdict, tried: Sequence[Tried]) -> Verdict:
    """What may be hoped of a network before it is tuned.

    Args:
        tried: verdicts on networks before and after they were tuned.
    """
    return verdict.raised(left_by(tried) - 1).less_certain(_varies(verdict.estimate_pp))


def promised(point: Found, school: School, budget: Budget) -> tuple[Found, Verdict]:
    """A network with the verdict on what tuning will make of it, and that verdict.

    The network is returned as it was where tuning makes it no better: where it is within the budget
    and probably would not be afterwards, or loses as much, which alone counts for a ratio. No more
    fifths are tried once the chance to be within the budget falls below 1 - ``budget.confidence``.
    """
    for change, alone in school.cross_validate(point):
        verdict = _changed(point.verdict, _drawn(change, point.verdict.estimate_pp))
        if not point.seen:
            verdict = _together(verdict, alone)
        if not budget.has_target and likelihood(budget, verdict) < 1 - budget.confidence:
            break
    met = is_within(budget, verdict)
    less = verdict.estimate_pp < point.verdict.estimate_pp
    better = less if budget.has_target or met == point.met else met
    return (replace(point, verdict=verdict, met=met) if better else point), verdict


def _drawn(change: Verdict, lost_pp: float) -> Verdict:
    """A change that few images found, drawn to what is usual where so much is lost."""
    before = Usual(np.array([(USUALLY_LEFT - 1) * max(0.0, lost_pp)]), np.array([_varies(lost_pp)]))
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
    uncertain = USUALLY_LEFT * verdict.estimate_uncertain_pp  # of what is lost a share is won back
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
