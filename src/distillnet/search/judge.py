"""What search images say of a changed network, beside the original."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.classes import Mission
from distillnet.search.budget import Budget

__all__ = ["Judge", "Verdict", "beyond_memory", "divergence", "log_probabilities"]

# Below this many errors in the budget, errors are too few to count, and the network's own expected
# error has to stay within the budget, too.
_COUNTABLE = 3
# Standard errors between the loss and the budget from which more images would change nothing.
_SURE = 1.5


@dataclass(frozen=True)
class Verdict:
    """Losses of closed-set accuracy in percentage points, divergence in nats per image.

    ``class_losses_pp`` are those of the mission's classes, in its order; ``expected_loss_pp`` is
    what the networks' own probabilities expect of their errors. ``uncertain_pp`` is the standard
    error of the loss, no less than one image's share; 0 where it is not known.
    """

    loss_pp: float
    expected_loss_pp: float
    class_losses_pp: tuple[float, ...]
    divergence: float
    uncertain_pp: float = 0.0
    n_images: int = 0

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
        """What is lost with scores (N, classes) of another network on the first N images."""
        n = len(scores_nk)
        reference, labels_n = self.reference[:n], self.labels_n[:n]
        now = log_probabilities(scores_nk, self.mission)
        wrong = [(log_p.argmax(1) != labels_n).double() for log_p in (reference, now)]
        expected = [1 - log_p.exp().gather(1, labels_n[:, None]) for log_p in (reference, now)]
        more = wrong[1] - wrong[0]
        by_class = [100 * float(more[labels_n == c].mean()) for c in labels_n.unique()]
        return Verdict(
            100 * float(more.mean()),
            100 * float((expected[1] - expected[0]).mean()),
            tuple(by_class),
            divergence(reference, now),
            100 * max(1 / n, float(more.square().mean() / n) ** 0.5),
            n,
        )

    def is_sure(self, budget: Budget, verdict: Verdict, light: Verdict | None = None) -> bool:
        """Whether all images together would hardly say otherwise of the budget than these."""
        loss, worst = beyond_memory(budget, verdict, light)
        of_class = verdict.uncertain_pp * len(verdict.class_losses_pp) ** 0.5
        beyond = max(
            (loss - budget.max_loss_pp) / verdict.uncertain_pp,
            (worst - budget.class_limit_pp) / of_class,
        )
        return abs(beyond) > _SURE and _is_countable(budget, verdict.n_images)

    def allows(self, budget: Budget, verdict: Verdict, light: Verdict | None = None) -> bool:
        """Whether the losses are within the budget, on average and for the worst class.

        ``light`` is the verdict on a network that should have lost nothing: what it lost is taken
        for the original's memory of these images, up to the budget, and not counted.
        """
        n = verdict.n_images
        loss, worst = beyond_memory(budget, verdict, light)
        if not _is_countable(budget, n):
            loss = max(loss, verdict.expected_loss_pp)
        # One image more than the budget is no proof against a class that has few of them.
        one_image = 100 / max(1, min(torch.bincount(self.labels_n[:n]).tolist()))
        # Five errors of 500 are within 1 point, whatever the rounding.
        return (
            loss <= budget.max_loss_pp + 1e-9
            and worst <= max(budget.class_limit_pp, one_image) + 1e-9
        )


def _is_countable(budget: Budget, n_images: int) -> bool:
    return budget.max_loss_pp * n_images >= 100 * _COUNTABLE


def beyond_memory(budget: Budget, verdict: Verdict, light: Verdict | None) -> tuple[float, float]:
    """The loss, and that of the worst class, less what ``light`` lost, in percentage points."""
    if light is None:
        return verdict.loss_pp, verdict.worst_class_loss_pp
    # The average's, for the worst class too: one class has too few images to tell its own.
    memory = min(max(0.0, light.loss_pp), budget.max_loss_pp)
    return verdict.loss_pp - memory, verdict.worst_class_loss_pp - memory


def log_probabilities(scores_nk: Tensor, mission: Mission) -> Tensor:
    """Log of the mission's class probabilities (N, mission), float64, from all scores."""
    return F.log_softmax(scores_nk[:, list(mission.indices)].double().cpu(), 1)


def divergence(reference: Tensor, now: Tensor) -> float:
    """KL(reference || now) of two log-probabilities (N, mission), mean over images, in nats."""
    return float(F.kl_div(now, reference, log_target=True, reduction="batchmean"))
