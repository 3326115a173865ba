"""What search images say of a changed network, beside the original."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.classes import Mission
from distillnet.search.budget import Budget

__all__ = ["Judge", "Verdict", "divergence", "log_probabilities"]

# Below this many errors in the budget, errors are too few to count, and the network's own expected
# error has to stay within the budget, too.
_COUNTABLE = 3


@dataclass(frozen=True)
class Verdict:
    """Losses of closed-set accuracy in percentage points, divergence in nats per image.

    ``expected_loss_pp`` is what the networks' own probabilities expect of their errors.
    """

    loss_pp: float
    expected_loss_pp: float
    worst_class_loss_pp: float
    divergence: float


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
        by_class = [float(more[self.labels_n == c].mean()) for c in self.labels_n.unique()]
        return Verdict(
            100 * float(more.mean()),
            100 * float((expected[1] - expected[0]).mean()),
            100 * max(by_class),
            divergence(self.reference, now),
        )

    def allows(self, budget: Budget, verdict: Verdict, memory_pp: float = 0.0) -> bool:
        """Whether the losses are within the budget, on average and for the worst class.

        ``memory_pp`` of each loss is taken for the original's memory of these images.
        """
        n = len(self.labels_n)
        countable = budget.max_loss_pp * n >= 100 * _COUNTABLE
        loss = verdict.loss_pp if countable else max(verdict.loss_pp, verdict.expected_loss_pp)
        # One image more than the budget is no proof against a class that has few of them.
        one_image = 100 / max(1, min(torch.bincount(self.labels_n).tolist()))
        worst = max(budget.class_limit_pp, one_image)
        # Five errors of 500 are within 1 point, whatever the rounding.
        return (
            loss - memory_pp <= budget.max_loss_pp + 1e-9
            and verdict.worst_class_loss_pp - memory_pp <= worst + 1e-9
        )


def log_probabilities(scores_nk: Tensor, mission: Mission) -> Tensor:
    """Log of the mission's class probabilities (N, mission), float64, from all scores."""
    return F.log_softmax(scores_nk[:, list(mission.indices)].double().cpu(), 1)


def divergence(reference: Tensor, now: Tensor) -> float:
    """KL(reference || now) of two log-probabilities (N, mission), mean over images, in nats."""
    return float(F.kl_div(now, reference, log_target=True, reduction="batchmean"))
