"""What each class of a mission loses, told from few images of each.

One error of twenty images is five points, and the worst of sixteen noisy classes always looks bad.
So classes are pooled: how far they really lie apart is estimated from how much farther they lie
apart than their images explain (DerSimonian and Laird, 1986), and each class is drawn to the
average by as much as its own images leave open.

Classes that gain for certain stand apart. That a last layer has learned to tell two classes says
nothing of how far the others lie apart: with those two among them, one image more of another class
would be believed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["pooled"]

_CERTAIN = 2  # standard errors


def pooled(losses_n: Tensor, labels_n: Tensor, n_classes: int | None = None) -> tuple[float, ...]:
    """The mean loss of each class, drawn to the mean of all by as much as chance explains.

    Of a class that gains for certain it is the mean itself, and the others are pooled without it.
    Of a class without an image it is the mean of all.

    Args:
        n_classes: of which ``labels_n`` are positions; by default those that it holds.

    >>> losses, labels = torch.tensor([0.0, 2.0, 0.0, 4.0]), torch.tensor([0, 0, 1, 1])
    >>> [round(loss, 6) for loss in pooled(losses, labels)]
    [1.5, 1.5]
    >>> [round(loss, 6) for loss in pooled(losses, labels, 3)]
    [1.5, 1.5, 1.5]
    """
    here = labels_n.unique().tolist()
    means = dict(zip(here, _of_those(losses_n, labels_n, here), strict=True))
    everyone = here if n_classes is None else range(n_classes)
    return tuple(means.get(c, float(losses_n.double().mean())) for c in everyone)


def _of_those(losses_n: Tensor, labels_n: Tensor, classes: Sequence[int]) -> tuple[float, ...]:
    parts = [losses_n[labels_n == c].double() for c in classes]
    noise = _noise(parts)
    gain = [
        float(part.mean()) < -_CERTAIN * error**0.5
        for part, error in zip(parts, noise, strict=True)
    ]
    drawn = iter(_drawn([part for part, gains in zip(parts, gain, strict=True) if not gains]))
    return tuple(
        float(part.mean()) if gains else next(drawn)
        for part, gains in zip(parts, gain, strict=True)
    )


def _noise(parts: Sequence[Tensor]) -> list[float]:
    """The variance of each part's mean, by how far losses lie apart within all parts.

    A few images that agree tell little of how far others of their class would lie apart.
    """
    counts = [len(part) for part in parts]
    within = sum(float((part - part.mean()).square().sum()) for part in parts)
    return [within / max(1, sum(counts) - len(parts)) / count for count in counts]


def _drawn(parts: Sequence[Tensor]) -> list[float]:
    """The means of parts, each drawn to the mean of all by as much as chance explains."""
    if not parts:
        return []
    means = torch.stack([part.mean() for part in parts])
    noise = torch.tensor(_noise(parts), dtype=torch.float64)
    if not bool((noise > 0).all()):
        return [float(mean) for mean in means]
    weights = 1 / noise
    average = float((weights * means).sum() / weights.sum())
    scatter = float((weights * (means - average).square()).sum()) - (len(parts) - 1)
    scale = float(weights.sum() - weights.square().sum() / weights.sum())
    apart = max(0.0, scatter / scale) if scale > 0 else 0.0
    return [float(mean) for mean in average + apart / (apart + noise) * (means - average)]
