"""What search images say of a changed network, beside the original."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.classes import Mission
from distillnet.search.budget import Budget

__all__ = [
    "Beyond",
    "Judge",
    "Verdict",
    "beyond_memory",
    "divergence",
    "is_sure",
    "is_within",
    "log_probabilities",
    "room",
]

# Below this many errors in the budget, errors are too few to count, and the network's own expected
# error has to stay within the budget, too.
_COUNTABLE = 3
# Standard errors between the loss and the budget from which more images would change nothing.
_SURE = 0.5
# One can be sure, as far as two standard errors go, that no more is lost than so many budgets.
_SURELY, _TWO_SIGMA = 1.5, 2.0
_ROUNDING = 1e-9
_LEAST_PP = 0.01  # a hundredth of a point is as good as nothing


@dataclass(frozen=True)
class Verdict:
    """Losses of closed-set accuracy in percentage points, divergence in nats per image.

    ``class_losses_pp`` are those of the mission's classes, in its order; ``expected_loss_pp`` is
    what the networks' own probabilities expect of their errors. ``uncertain_pp`` and
    ``expected_uncertain_pp`` are the standard errors of both; the former is no less than one
    image's share.
    """

    loss_pp: float
    expected_loss_pp: float
    class_losses_pp: tuple[float, ...]
    divergence: float
    uncertain_pp: float = 0.0
    expected_uncertain_pp: float = 0.0
    n_images: int = 0
    n_images_of_rarest: int = 0

    @property
    def worst_class_loss_pp(self) -> float:
        return max(self.class_losses_pp)


class Judge:
    """The original's answers on the search images, to compare others with.

    Args:
        scores_nk: of the original, all its classes.
        labels_n: positions in the mission.
    """

    def __init__(self, scores_nk: Tensor, labels_n: Tensor, mission: Mission) -> None:
        self.mission, self.labels_n = mission, labels_n
        self.reference = log_probabilities(scores_nk, mission)

    def verdict(self, scores_nk: Tensor) -> Verdict:
        """What is lost with scores (N, classes) of another network on the first N images.

        N is the number of images of the first fold or of all.
        """
        n = len(scores_nk)
        reference, labels_n = self.reference[:n], self.labels_n[:n]
        now = log_probabilities(scores_nk, self.mission)
        wrong = [(log_p.argmax(1) != labels_n).double() for log_p in (reference, now)]
        expected = [1 - log_p.exp().gather(1, labels_n[:, None]) for log_p in (reference, now)]
        more = wrong[1] - wrong[0]
        expected_more = (expected[1] - expected[0])[:, 0]
        by_class = [100 * float(more[labels_n == c].mean()) for c in labels_n.unique()]
        return Verdict(
            100 * float(more.mean()),
            100 * float(expected_more.mean()),
            tuple(by_class),
            divergence(reference, now),
            100 * max(1 / n, float(more.square().mean() / n) ** 0.5),
            100 * float(expected_more.square().mean() / n) ** 0.5,
            n,
            min(torch.bincount(labels_n).tolist()),
        )

    def allows(self, budget: Budget, verdict: Verdict) -> bool:
        """Whether the counted losses are within the budget, on average and for the worst class."""
        n = verdict.n_images
        loss = verdict.loss_pp
        if not _is_countable(budget, n):
            loss = max(loss, verdict.expected_loss_pp)
        # One image more than the budget is no proof against a class that has few of them.
        one_image = 100 / max(1, verdict.n_images_of_rarest)
        # Five errors of 500 are within 1 point, whatever the rounding.
        return (
            loss <= budget.max_loss_pp + _ROUNDING
            and verdict.worst_class_loss_pp <= max(budget.class_limit_pp, one_image) + _ROUNDING
        )


@dataclass(frozen=True)
class Beyond:
    """Losses in percentage points less what a lightly cut network loses, too."""

    expected_pp: float
    counted_pp: float
    worst_class_pp: float


def beyond_memory(budget: Budget, verdict: Verdict, light: Verdict | None) -> Beyond:
    """What is lost beyond the original's memory of the images that judge.

    ``light`` is the verdict on a network that should have lost nothing: what it lost for certain,
    that is beyond a standard error, is taken for memory, but no more than the budget.
    """

    def memory(loss_pp: float, uncertain_pp: float) -> float:
        return min(max(0.0, loss_pp - uncertain_pp), budget.max_loss_pp)

    if light is None:
        return Beyond(verdict.expected_loss_pp, verdict.loss_pp, verdict.worst_class_loss_pp)
    counted = memory(light.loss_pp, light.uncertain_pp)
    return Beyond(
        verdict.expected_loss_pp - memory(light.expected_loss_pp, light.expected_uncertain_pp),
        verdict.loss_pp - counted,
        # The average's, for the worst class too: one class has too few images to tell its own.
        verdict.worst_class_loss_pp - counted,
    )


def is_within(budget: Budget, verdict: Verdict, light: Verdict | None = None) -> bool:
    """Whether a network is within the budget as far as the images can tell.

    The expected loss decides: it estimates what is counted, with two thirds of the noise, and
    comes nearer to what is then found on unseen images (docs/results.md). Two standard errors more
    may not be beyond one and a half budgets, so that few images allow little. The expected loss
    trusts the networks' confidence; so counted errors object where they are beyond the budget by
    more than their standard error, on average or, by one image at least, in the worst class.
    """
    loss = beyond_memory(budget, verdict, light)
    one_image = 100 / max(1, verdict.n_images_of_rarest)
    return (
        loss.expected_pp <= _limit(budget, verdict) + _ROUNDING
        and loss.counted_pp <= budget.max_loss_pp + verdict.uncertain_pp + _ROUNDING
        and loss.worst_class_pp <= max(budget.class_limit_pp, one_image) + _ROUNDING
    )


def is_sure(budget: Budget, verdict: Verdict, light: Verdict | None = None) -> bool:
    """Whether more images would hardly say otherwise of the budget than these."""
    expected = beyond_memory(budget, verdict, light).expected_pp
    margin = _SURE * verdict.expected_uncertain_pp
    # With more images the limit may only rise, to the budget at most.
    fails, fits = (
        expected > budget.max_loss_pp + margin,
        expected < _limit(budget, verdict) - margin,
    )
    return (fails or fits) and _is_countable(budget, verdict.n_images)


def room(budget: Budget, verdict: Verdict, light: Verdict | None = None) -> float:
    """How many times the expected loss fits into what may be expected; both are at least 0.01 pp.

    >>> room(Budget(max_loss_pp=1.0), Verdict(0.0, 0.5, (0.0,), 0.0))
    2.0
    """
    expected = beyond_memory(budget, verdict, light).expected_pp
    return max(_limit(budget, verdict), _LEAST_PP) / max(expected, _LEAST_PP)


def _limit(budget: Budget, verdict: Verdict) -> float:
    """The most that may be expected to be lost, in percentage points."""
    most = _SURELY * budget.max_loss_pp - _TWO_SIGMA * verdict.expected_uncertain_pp
    return min(budget.max_loss_pp, most)


def _is_countable(budget: Budget, n_images: int) -> bool:
    return budget.max_loss_pp * n_images >= 100 * _COUNTABLE


def log_probabilities(scores_nk: Tensor, mission: Mission) -> Tensor:
    """Log of the mission's class probabilities (N, mission), float64, from all scores."""
    return F.log_softmax(scores_nk[:, list(mission.indices)].double().cpu(), 1)


def divergence(reference: Tensor, now: Tensor) -> float:
    """KL(reference || now) of two log-probabilities (N, mission), mean over images, in nats."""
    return float(F.kl_div(now, reference, log_target=True, reduction="batchmean"))
