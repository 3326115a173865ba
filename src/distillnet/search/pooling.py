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
_LEAST_GAIN = 50.0  # points of one image


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
    gain = [_gains_for_certain(part) for part in parts]
    drawn = iter(_drawn([part for part, gains in zip(parts, gain, strict=True) if not gains]))
    return tuple(
        float(part.mean()) if gains else next(drawn)
        for part, gains in zip(parts, gain, strict=True)
    )


def _gains_for_certain(losses_n: Tensor) -> bool:
    """Whether losses of a class are less than nothing, by more than chance.

    By no less than half an image, too: where all images of a class are a little surer, the class
    does not lie apart from those of which one is not.
    """
    mean, error = float(losses_n.mean()), float(losses_n.std(correction=0)) / len(losses_n) ** 0.5
    return mean < -max(_CERTAIN * error, _LEAST_GAIN / len(losses_n))


def _drawn(parts: Sequence[Tensor]) -> list[float]:
    """The means of parts, each drawn to the mean of all by as much as chance explains."""
    if not parts:
        return []
    counts = torch.tensor([float(len(part)) for part in parts], dtype=torch.float64)
    means = torch.stack([part.mean() for part in parts])
    within = sum(float((part - part.mean()).square().sum()) for part in parts)
    noise = within / max(1, int(counts.sum()) - len(parts)) / counts  # variance of each mean
    if not bool((noise > 0).all()):
        return [float(mean) for mean in means]
    weights = 1 / noise
    average = float((weights * means).sum() / weights.sum())
    scatter = float((weights * (means - average).square()).sum()) - (len(parts) - 1)
    scale = float(weights.sum() - weights.square().sum() / weights.sum())
    apart = max(0.0, scatter / scale) if scale > 0 else 0.0
    return [float(mean) for mean in average + apart / (apart + noise) * (means - average)]
