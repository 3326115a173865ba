"""How often a rule is wrong, and where to put its threshold.

Margins are the mission's largest calibrated score less that of the unknown: an image is accepted
where its margin reaches the threshold. A *false reject* is an image of the mission that is
refused, a *false accept* an image of something else that is taken for a class.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.errors import InputError

__all__ = [
    "OperatingPoint",
    "area_under_roc",
    "false_accepts_at",
    "operating_point",
    "rejection_curve",
]

_POINTS = 100


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and the shares of images on its wrong side; None where none were seen."""

    threshold: float
    false_reject: float
    false_accept: float | None


def area_under_roc(known_n: Tensor, unknown_m: Tensor) -> float:
    """The chance that an image of the mission has a larger margin than another; a tie is half.

    Mann and Whitney's statistic (Annals of Mathematical Statistics 18, 1947) over N M.

    >>> area_under_roc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    ordered = unknown_m.sort().values
    below = torch.searchsorted(ordered, known_n.contiguous())
    ties = torch.searchsorted(ordered, known_n.contiguous(), right=True) - below
    return float((below.double() + 0.5 * ties.double()).mean()) / len(unknown_m)


def false_accepts_at(known_n: Tensor, unknown_m: Tensor, false_reject: float) -> float:
    """The share of other images accepted where this share of the mission's is refused."""
    return float((unknown_m >= _reject_threshold(known_n, false_reject)).double().mean())


def rejection_curve(known_n: Tensor, unknown_m: Tensor) -> tuple[tuple[float, float], ...]:
    """Shares of false rejects and of the false accepts that are left, by threshold.

    About a hundred at most, the nearer to each other the fewer are refused.

    >>> rejection_curve(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0, 2.5, 0.0]))
    ((0.0, 0.5), (0.5, 0.0))
    """
    ordered = known_n.sort().values
    n = len(ordered)
    curve = {}
    for at in sorted({(n - 1) * i * i // _POINTS**2 for i in range(_POINTS + 1)}):
        threshold = ordered[at]
        refused = float((known_n < threshold).double().mean())
        curve[refused] = float((unknown_m >= threshold).double().mean())
    return tuple(curve.items())


def operating_point(
    known_n: Tensor,
    unknown_m: Tensor | None,
    *,
    max_false_accept: float | None = None,
    max_false_reject: float | None = None,
) -> OperatingPoint:
    """The threshold that refuses as few images of the mission as ``max_false_accept`` lets it.

    Without that, the one that refuses ``max_false_reject`` of the mission's images, 0.05 by
    default. Shares in 0..1.

    Raises:
        InputError: both are given, and no threshold holds both; or there are no images of other
            things to count false accepts of.
    """
    if max_false_accept is None:
        share = 0.05 if max_false_reject is None else max_false_reject
        return _at(_reject_threshold(known_n, share), known_n, unknown_m)
    if unknown_m is None:
        raise InputError(
            "--max-false-accept needs images of what is none of the mission's classes; name a "
            "folder of them with --unknown"
        )
    ordered = unknown_m.sort().values
    allowed = math.floor(max_false_accept * len(ordered) + 1e-9)
    if allowed == len(ordered):
        threshold = float("-inf")
    else:  # just above the first that may not pass
        first = ordered[len(ordered) - allowed - 1]
        threshold = float(torch.nextafter(first, torch.full_like(first, math.inf)))
    # No lower than what any image needs: the rule goes into files, where there is no infinity.
    threshold = max(threshold, float(torch.minimum(known_n.min(), ordered[0])))
    point = _at(threshold, known_n, unknown_m)
    if max_false_reject is not None and point.false_reject > max_false_reject + 1e-9:
        raise InputError(
            f"with at most {100 * max_false_accept:g} % false accepts, "
            f"{100 * point.false_reject:.1f} % of the mission's images are refused; at most "
            f"{100 * max_false_reject:g} % are allowed. Allow more of either, give more images "
            "with --unknown, or distill with a smaller --max-loss"
        )
    return point


def _reject_threshold(known_n: Tensor, share: float) -> float:
    ordered = known_n.sort().values
    return float(ordered[min(math.floor(share * len(ordered) + 1e-9), len(ordered) - 1)])


def _at(threshold: float, known_n: Tensor, unknown_m: Tensor | None) -> OperatingPoint:
    return OperatingPoint(
        threshold,
        float((known_n < threshold).double().mean()),
        None if unknown_m is None else float((unknown_m >= threshold).double().mean()),
    )
