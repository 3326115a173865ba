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


@dataclass(frozen=True)
class Verdict:
    """Losses of closed-set accuracy in percentage points, divergence in nats per image.

    ``class_losses_pp`` are those of the mission's classes, in its order; ``expected_loss_pp`` is
    what the networks' own probabilities expect of their errors.
    """

    loss_pp: float
    expected_loss_pp: float
    class_losses_pp: tuple[float, ...]
    divergence: float

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
        """What is lost with scores (N, classes) of another network on the same images."""
        now = log_probabilities(scores_nk, self.mission)
        wrong = [(log_p.argmax(1) != self.labels_n).double() for log_p in (self.reference, now)]
        expected = [
            1 - log_p.exp().gather(1, self.labels_n[:, None]) for log_p in (self.reference, now)
        ]
        more = wrong[1] - wrong[0]
        by_class = [100 * float(more[self.labels_n == c].mean()) for c in self.labels_n.unique()]
        return Verdict(
            100 * float(more.mean()),
            100 * float((expected[1] - expected[0]).mean()),
            tuple(by_class),
            divergence(self.reference, now),
        )

    def allows(self, budget: Budget, verdict: Verdict, light: Verdict | None = None) -> bool:
        """Whether the losses are within the budget, on average and for the worst class.

        ``light`` is the verdict on a network that should have lost nothing: what it lost is taken
        for the original's memory of these images, up to the budget, and not counted.
        """
        n = len(self.labels_n)
        countable = budget.max_loss_pp * n >= 100 * _COUNTABLE
        loss, worst = beyond_memory(budget, verdict, light)
        if not countable:
            loss = max(loss, verdict.expected_loss_pp)
        # One image more than the budget is no proof against a class that has few of them.
        one_image = 100 / max(1, min(torch.bincount(self.labels_n).tolist()))
        # Five errors of 500 are within 1 point, whatever the rounding.
        return (
            loss <= budget.max_loss_pp + 1e-9
            and worst <= max(budget.class_limit_pp, one_image) + 1e-9
        )


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
