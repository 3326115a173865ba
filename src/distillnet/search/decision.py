"""Whether a network is within a budget, by what its verdict lets expect of unseen images."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from distillnet.search.budget import Budget
from distillnet.search.curve import Values
from distillnet.search.judge import Verdict

__all__ = ["Estimate", "estimate", "is_within", "likelihood", "limits", "ndtr", "objection"]

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
    at = np.array([expected.loss_pp]), np.array([expected.uncertain_pp])
    return float(_probabilities(budget, *at, expected.original_wrong_pp)[0])


def _probabilities(
    budget: Budget, loss_pp: Values, uncertain_pp: Values, original_wrong_pp: float
) -> Values:
    """How likely each loss is within the budget, given that no more is gained than there is.

    A network that is cut without labels learns nothing new. What it gains it gains by chance among
    the images that the original got wrong, and puts as many others wrong: where few images seem to
    say that it got better by more than half of those, or than half a budget, the rest is chance.
    """
    most_gained = max(budget.max_loss_pp, original_wrong_pp) / 2
    uncertain_pp = np.maximum(uncertain_pp, _ROUNDING)
    below = ndtr((-most_gained - loss_pp) / uncertain_pp)
    within = ndtr((budget.max_loss_pp + _ROUNDING - loss_pp) / uncertain_pp)
    certain = below > 1 - _ROUNDING  # better for certain
    return np.where(certain, 1.0, (within - below) / np.where(certain, 1.0, 1 - below))


def objection(budget: Budget, verdict: Verdict) -> str:
    """What speaks against a network, in words; empty where it is within the budget.

    >>> budget = Budget(1.0, confidence=0.7)
    >>> doubtful = Verdict(0.0, 0.0, (0.0,), 0.0, estimate_pp=0.7, estimate_uncertain_pp=0.7)
    >>> objection(budget, doubtful)
    'a loss of 0.7 +- 0.7 points is expected, which is within 1 with a confidence of 0.65, not 0.70'
    """
    if is_within(budget, verdict):
        return ""
    expected = estimate(verdict)
    sure = _probability(budget, expected)
    if sure < budget.confidence:
        rounded = math.floor(100 * sure) / 100  # 0.697 is not 0.70
        return (
            f"a loss of {expected.loss_pp:.1f} +- {expected.uncertain_pp:.1f} points is expected, "
            f"which is within {budget.max_loss_pp:g} with a confidence of {rounded:.2f}, not "
            f"{budget.confidence:.2f}"
        )
    return (
        f"its worst class is expected to lose {expected.worst_class_pp:.1f} points, not "
        f"{budget.class_limit_pp:g} at most"
    )


def limits(budget: Budget, uncertain_pp: Values, original_wrong_pp: float = 0.0) -> Values:
    """The most that may be expected to be lost (N,), in percentage points, as uncertain as it is.

    >>> limits(Budget(max_loss_pp=1.0, confidence=0.7), np.array([0.0, 0.5])).round(2).tolist()
    [1.0, 0.73]
    """
    high = np.full_like(uncertain_pp, budget.max_loss_pp)
    low = high - 4 * uncertain_pp
    for _ in range(30):
        middle = (low + high) / 2
        found = _probabilities(budget, middle, uncertain_pp, original_wrong_pp)
        fits = found >= budget.confidence
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def ndtr(z: Values) -> Values:
    """The standard normal distribution function."""
    values: Values = torch.special.ndtr(torch.from_numpy(z)).numpy()
    return values
