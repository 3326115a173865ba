"""The section of what is not known: how many images would tell more, and of unknown inputs."""

import math
from collections.abc import Mapping
from typing import Any

from distillnet.job.results import finite_loss_pp
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Subject

__all__ = ["budget", "images_needed"]

_WANTED_PP = (2.0, 1.0, 0.5, 0.25)  # half widths of intervals


def images_needed(n: int, half_width_pp: float, wanted_pp: float) -> int:
    """How many images an interval needs to be so narrow: widths fall as the root of their number.

    >>> images_needed(250, 1.0, 0.5)
    1000
    """
    return max(1, math.ceil(n * (half_width_pp / wanted_pp) ** 2 - 1e-9))


def budget(subject: Subject) -> tuple[Section, tuple[Absent, ...]]:
    """The section, which every run has, and what it lacks."""
    result = subject.result
    low, high = result["loss_ci95_pp"]
    n, half = result["n_images"]["val"], (high - low) / 2
    rows = [(wanted, images_needed(n, half, wanted)) for wanted in _WANTED_PP]
    allowed = finite_loss_pp(result)
    values = {
        "n": n,
        "half": half,
        "low": low,
        "high": high,
        "rows": rows,
        "allowed": allowed,
        "to_tell": _to_tell(result, allowed),
        "confidence": result["budget"]["confidence"],
        "class_limit": result["budget"]["max_class_loss_pp"],
    }
    return Section("budget", "What is not known", values), ()


def _to_tell(result: Mapping[str, Any], allowed: float | None) -> int | None:
    """How many images would tell whether the budget holds, were the loss what it seems.

    None where they tell already, or never would.
    """
    low, high = result["loss_ci95_pp"]
    middle, n = (low + high) / 2, result["n_images"]["val"]
    if allowed is None or not low <= allowed < high or middle == allowed:
        return None
    return images_needed(n, high - middle, abs(allowed - middle))
