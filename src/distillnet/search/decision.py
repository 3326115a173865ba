"""Whether a network is within a budget, by what its verdict lets expect of unseen images."""

from dataclasses import dataclass, replace
from statistics import NormalDist

from distillnet.search.budget import Budget
from distillnet.search.judge import Verdict

__all__ = ["Estimate", "estimate", "is_within", "likelihood", "limit", "objection"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A loss expected on unseen images, in percentage points, and its standard error.

    ``original_wrong_pp`` is how many images the original gets wrong.
    """

    loss_pp: float
    uncertain_pp: float
    worst_class_pp: float
    original_wrong_pp: float = 0.0

    @property
    def ci95_pp(self) -> tuple[float, float]:
        """Where the loss lies in 95 of 100 cases."""
        wide = NormalDist().inv_cdf(0.975) * self.uncertain_pp
        return self.loss_pp - wide, self.loss_pp + wide


def estimate(verdict: Verdict) -> Estimate:
    """What a verdict lets expect of images that nobody has seen."""
    worst = max(verdict.class_estimates_pp)
    return Estimate(
        verdict.estimate_pp, verdict.estimate_uncertain_pp, worst, verdict.original_wrong_pp
    )


def is_within(budget: Budget, verdict: Verdict) -> bool:
    """Whether the budget holds with the confidence that it asks for, as far as images can tell."""
    expected = estimate(verdict)
    return (
        _probability(budget, expected) >= budget.confidence
        and expected.worst_class_pp <= budget.class_limit_pp + _ROUNDING
    )


def likelihood(budget: Budget, verdict: Verdict) -> float:
    """How likely the average loss on unseen images is within the budget, from 0 to 1."""
    return _probability(budget, estimate(verdict))


def _probability(budget: Budget, expected: Estimate) -> float:
    """How likely the loss is within the budget, given that no more is gained than there is to gain.

    A network that is cut without labels learns nothing new. What it gains it gains by chance among
    the images that the original got wrong, and puts as many others wrong: where few images seem to
    say that it got better by more than half of those, or than half a budget, the rest is chance.
    """
    chance = NormalDist(expected.loss_pp, max(expected.uncertain_pp, _ROUNDING))
    below = chance.cdf(-max(budget.max_loss_pp, expected.original_wrong_pp) / 2)
    if below > 1 - _ROUNDING:  # better for certain
        return 1.0
    return (chance.cdf(budget.max_loss_pp + _ROUNDING) - below) / (1 - below)


def objection(budget: Budget, verdict: Verdict) -> str:
    """What speaks against a network, in words; empty where it is within the budget.

    >>> objection(Budget(1.0), Verdict(0.0, 2.0, (0.0,), 0.0, estimate_pp=2.0))
    'a loss of 2.0 +- 0.0 points is expected'
    """
    if is_within(budget, verdict):
        return ""
    expected = estimate(verdict)
    if _probability(budget, expected) < budget.confidence:
        return f"a loss of {expected.loss_pp:.1f} +- {expected.uncertain_pp:.1f} points is expected"
    return f"its worst class is expected to lose {expected.worst_class_pp:.1f} points"


def limit(budget: Budget, expected: Estimate) -> float:
    """The most that may be estimated to be lost, in percentage points, as uncertain as it is.

    >>> expected = Estimate(loss_pp=0.0, uncertain_pp=0.5, worst_class_pp=0.0)
    >>> round(limit(Budget(max_loss_pp=1.0, confidence=0.7), expected), 2)
    0.73
    """
    low, high = budget.max_loss_pp - 4 * expected.uncertain_pp, budget.max_loss_pp
    for _ in range(30):
        middle = (low + high) / 2
        fits = _probability(budget, replace(expected, loss_pp=middle)) >= budget.confidence
        low, high = (middle, high) if fits else (low, middle)
    return low
