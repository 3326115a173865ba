"""By how much images that a network was fitted on flatter it."""

from collections.abc import Iterable

from distillnet.search.judge import Verdict

__all__ = ["flattery"]

# The share by which estimates on fitted images are too small, before a cross-validation has told:
# the less, the more images. It weighs as much as one of a candidate that loses a point.
_FLATTERED_IMAGES, _MOST, _WEIGHT_PP = 90, 0.5, 1.0
_SLIGHT_PP = 0.2  # added to each loss that shares are taken of: some lose nothing


def flattery(validated: Iterable[tuple[Verdict, Verdict]], n_images: int) -> float:
    """By what share estimates on fitted images are too small.

    Args:
        validated: verdicts on fitted images and by cross-validation, of the same networks.
        n_images: that networks are fitted on.

    >>> flattery([], 900)
    0.1
    """
    pairs = list(validated)
    more = sum(after.estimate_pp - before.estimate_pp for before, after in pairs)
    of = sum(max(before.estimate_pp, 0.0) + _SLIGHT_PP for before, _ in pairs)
    usual = min(_MOST, _FLATTERED_IMAGES / n_images)
    return max(0.0, (more + usual * _WEIGHT_PP) / (of + _WEIGHT_PP))
