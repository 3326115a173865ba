"""What search images say of a changed network, beside the original.

*The estimate.* Two measurements of what a network will lose on images that nobody has seen: errors,
counted, which are right on average and noisy; and the errors that the networks' own probabilities
expect, with a third to two thirds of the noise, but off by as much as probabilities mislead. (They
are squared, and so sharpened. A decision goes to the likelier class: where two are at 0.9 and 0.1,
one of ten is wrong. Labels and probabilities both left to chance, it would be 0.18; squared, 0.11.)
The estimate is the mixture of both with the least mean squared error: with few images it listens to
the probabilities, with many to the errors.

*Classes* count by their shares of the images that a loss is reported on, where these are known: a
network that learns to tell one class better gains by how often that class comes. What each of them
loses is pooled; see ``pooling``.

*Images that weights were fitted on* flatter, by as much as images that were not slander (the
networks that those judge were fitted on fewer). The middle of both counts where both are known,
or the latter alone where images are few: then networks that are cut far are flattered by points.

Images that the network was trained on mislead in another way; see ``known``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.classes import Mission
from distillnet.refit.samples import by_image
from distillnet.search.budget import Budget
from distillnet.search.known import knows
from distillnet.search.pooling import pooled

__all__ = [
    "Judge",
    "Verdict",
    "certainty",
    "divergence",
    "is_right",
    "log_probabilities",
]

# Below this many errors in the budget, errors are too few to count, and the network's own expected
# error has to stay within the budget, too.
_COUNTABLE = 3
_ROUNDING = 1e-9
_LEAST_ERRORS = 0.5  # that are left to chance, however little seems to change
# By how much what probabilities expect may be off: a share of it, and points.
_MISLED, _MISLED_PP = 0.25, 0.1


@dataclass(frozen=True)
class Verdict:
    """Losses of closed-set accuracy in percentage points, divergence in nats per image.

    Attributes:
        loss_pp: counted; ``uncertain_pp`` its standard error, no less than one image's share.
        expected_loss_pp: what the networks' own probabilities expect; ``expected_uncertain_pp``.
        class_losses_pp: counted, of the mission's classes in its order.
        estimate_pp: of the loss on other images like these; ``estimate_uncertain_pp``.
        class_estimates_pp: the same by class, pooled.
        original_wrong_pp: how many of the images the original gets wrong.
    """

    loss_pp: float
    expected_loss_pp: float
    class_losses_pp: tuple[float, ...]
    divergence: float
    uncertain_pp: float = 0.0
    expected_uncertain_pp: float = 0.0
    n_images: int = 0
    n_images_of_rarest: int = 0
    estimate_pp: float = 0.0
    estimate_uncertain_pp: float = 0.0
    class_estimates_pp: tuple[float, ...] = (0.0,)
    original_wrong_pp: float = 0.0

    @property
    def worst_class_loss_pp(self) -> float:
        return max(self.class_losses_pp)

    def towards(self, other: "Verdict", way: float) -> "Verdict":
        """The verdict with estimates a part of the way to those of another, or farther.

        >>> here = Verdict(0.0, 0.0, (0.0,), 0.0)
        >>> there = replace(here, estimate_pp=1.0)
        >>> here.towards(there, 0.5).estimate_pp, here.towards(there, 2.0).estimate_pp
        (0.5, 2.0)
        """

        def moved(one: float, two: float) -> float:
            return one + way * (two - one)

        one, two = self.estimate_uncertain_pp, other.estimate_uncertain_pp
        # What is drawn out farther errs by as much more.
        far = math.sqrt(one**2 + way**2 * max(0.0, two**2 - one**2))
        return replace(
            self,
            estimate_pp=moved(self.estimate_pp, other.estimate_pp),
            estimate_uncertain_pp=moved(one, two) if way <= 1 else max(one, two, far),
            class_estimates_pp=tuple(
                moved(*pair)
                for pair in zip(self.class_estimates_pp, other.class_estimates_pp, strict=True)
            ),
        )

    def less_certain(self, misled_pp: float) -> "Verdict":
        """The verdict where the estimate may be off by so much more, as a standard error."""
        uncertain = math.hypot(self.estimate_uncertain_pp, misled_pp)
        return replace(self, estimate_uncertain_pp=uncertain)

    def shifted(self, more_pp: float) -> "Verdict":
        """The verdict with estimates so much larger; how uncertain they are stays as it was."""
        return replace(
            self,
            estimate_pp=self.estimate_pp + more_pp,
            class_estimates_pp=tuple(loss + more_pp for loss in self.class_estimates_pp),
        )

    def raised(self, share: float) -> "Verdict":
        """The verdict with estimates raised by a share: losses, not what was gained.

        They are less certain then, but for a large share of next to nothing no more than by half.
        """
        return replace(
            self,
            estimate_pp=self.estimate_pp + share * max(0.0, self.estimate_pp),
            estimate_uncertain_pp=(1 + min(share, 0.5)) * self.estimate_uncertain_pp,
            class_estimates_pp=tuple(x + share * max(0.0, x) for x in self.class_estimates_pp),
        )


class Judge:
    """The original's answers on the search images, to compare others with.

    Args:
        scores_nk: of the original, all its classes.
        labels_n: positions in the mission.
        image_n: which image each of them shows, from 0 on: two views of an image are no
            two pieces of evidence. None takes each for an image of its own.
        shares: of the mission's classes, of the images that the loss is estimated for. None takes
            them to be those of these images.

    Attributes:
        seen: whether the original seems to have been trained on these images; see ``known``.
    """

    def __init__(
        self,
        scores_nk: Tensor,
        labels_n: Tensor,
        mission: Mission,
        image_n: Tensor | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.mission, self.labels_n = mission, labels_n
        self.image_n = torch.arange(len(labels_n)) if image_n is None else image_n
        self.first = torch.from_numpy(np.unique(self.image_n.numpy(), return_index=True)[1])
        self.reference = log_probabilities(scores_nk, mission)
        self.weight_n = _weights(labels_n[self.first], shares)
        trained_on = torch.tensor(mission.indices)[labels_n[self.first]]
        self.seen = knows(scores_nk[self.first], trained_on)

    def verdict(self, scores_nk: Tensor) -> Verdict:
        """What is lost with scores (N, classes) of another network."""
        n, labels_n, reference = len(self.first), self.labels_n[self.first], self.reference
        weight_n = self.weight_n
        now = log_probabilities(scores_nk, self.mission)
        both = reference, now
        wrong = [by_image(100.0 * (p.argmax(1) != self.labels_n), self.image_n) for p in both]
        hopes = [by_image(100 * _certainty(p, self.labels_n), self.image_n) for p in both]
        more, expected_more = wrong[1] - wrong[0], hopes[0] - hopes[1]
        k = len(self.mission)
        of_each = [more[labels_n == c] for c in range(k)]  # none of some classes in a small part
        by_class = [float((some if len(some) else more).mean()) for some in of_each]
        share, misled_pp = _mixture(weight_n * more, weight_n * expected_more)
        mixed = share * more + (1 - share) * expected_more
        chance = float((weight_n * mixed).var(correction=0) / n) ** 0.5
        # Of unequal weights as many images tell as much as these.
        telling = n**2 / float(weight_n.square().sum())
        uncertain = math.hypot(max(chance, _LEAST_ERRORS * 100 / telling), misled_pp)
        return Verdict(
            float(more.mean()),
            float(expected_more.mean()),
            tuple(by_class),
            divergence(reference, now),
            max(100 / n, float(more.square().mean() / n) ** 0.5),
            float(expected_more.square().mean() / n) ** 0.5,
            n,
            min(torch.bincount(labels_n, minlength=k).tolist()),
            float((weight_n * mixed).mean()),
            uncertain,
            pooled(mixed, labels_n, k),
            float((weight_n * wrong[0]).mean()),
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


def _weights(labels_n: Tensor, shares: Sequence[float] | None) -> Tensor:
    """How much each image (N,) counts, 1 in the mean, for classes to have such shares.

    >>> _weights(torch.tensor([0, 0, 0, 1]), [0.5, 0.5]).tolist()
    [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    if shares is None:
        return torch.ones(len(labels_n), dtype=torch.float64)
    here = torch.bincount(labels_n, minlength=len(shares)).double()
    wanted = torch.tensor(shares, dtype=torch.float64) * (here > 0)
    return (wanted / wanted.sum() * len(labels_n) / here)[labels_n]


def certainty(scores_nk: Tensor, labels_n: Tensor, mission: Mission) -> Tensor:
    """How sure a network's decision is of what each image shows (N,), from 0 to 1.

    Args:
        scores_nk: all its classes.
        labels_n: positions in the mission.
    """
    return _certainty(log_probabilities(scores_nk, mission), labels_n.cpu())


def is_right(scores_nk: Tensor, labels_n: Tensor, mission: Mission) -> Tensor:
    """1 of each image (N,) that a network decides rightly among the mission's classes, else 0."""
    return (log_probabilities(scores_nk, mission).argmax(1) == labels_n.cpu()).double()


def _certainty(log_p_nk: Tensor, labels_n: Tensor) -> Tensor:
    """Of each label: squares of probabilities, summing to 1."""
    return (2 * log_p_nk).softmax(1).gather(1, labels_n[:, None])[:, 0]


def _mixture(counted_n: Tensor, expected_n: Tensor) -> tuple[float, float]:
    """How to mix two measurements of each image (N,), and how far the mixture may be misled.

    Of  share x counted + (1 - share) x expected  the share is the one of least variance of the mean
    and square of what the expected one may be off.
    """
    n = len(counted_n)
    both = torch.cov(torch.stack([counted_n, expected_n]), correction=0) / n
    # No errors are no proof that there are none: one image more or less is always possible.
    counted = max(float(both[0, 0]), (100 / n) ** 2)
    expected, common = float(both[1, 1]), float(both[0, 1])
    # How far they lie apart, beyond chance, tells that probabilities mislead more than is usual.
    apart = float(counted_n.mean() - expected_n.mean()) ** 2 - (counted + expected - 2 * common)
    off = max(_MISLED_PP + _MISLED * abs(float(expected_n.mean())), max(0.0, apart) ** 0.5)
    least = counted + expected + off**2 - 2 * common
    share = min(1.0, max(0.0, (expected + off**2 - common) / least)) if least > 0 else 0.0
    return share, (1 - share) * off


def _is_countable(budget: Budget, n_images: int) -> bool:
    return budget.max_loss_pp * n_images >= 100 * _COUNTABLE


def log_probabilities(scores_nk: Tensor, mission: Mission) -> Tensor:
    """Log of the mission's class probabilities (N, mission), float64, from all scores."""
    return F.log_softmax(scores_nk[:, list(mission.indices)].double().cpu(), 1)


def divergence(reference: Tensor, now: Tensor) -> float:
    """KL(reference || now) of two log-probabilities (N, mission), mean over images, in nats."""
    return float(F.kl_div(now, reference, log_target=True, reduction="batchmean"))
