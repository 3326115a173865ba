"""The section of what is not known: images of none of the classes, and how many would tell more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillnet.job.results import finite_loss_pp
from distillnet.pages.report.figures import rejection_curves
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Refusals, Subject

__all__ = ["budget", "images_needed", "share_interval"]

_WANTED_PP = (2.0, 1.0, 0.5, 0.25)  # half widths of intervals
_REFUSED = (0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_IMAGES = 10**9
_Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class _Column:
    """How many images it takes to know something, by the half width of its interval in points."""

    what: str
    n: int
    needed: dict[float, int]


def images_needed(n: int, half_width_pp: float, wanted_pp: float) -> int:
    """How many images an interval needs to be so narrow: widths fall as the root of their number.

    >>> images_needed(250, 1.0, 0.5)
    1000
    """
    return max(1, math.ceil(n * (half_width_pp / wanted_pp) ** 2 - 1e-9))


def share_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` (Wilson, JASA 22, 1927).

    >>> low, high = share_interval(0.0, 100)
    >>> print(f"{low:.3f} {high:.3f}")
    0.000 0.037
    """
    square = _Z * _Z / n
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def budget(subject: Subject, commands: Mapping[str, str]) -> tuple[Section, tuple[Absent, ...]]:
    """The section, which every run has, and what it lacks."""
    result, refusals = subject.result, subject.refusals
    low, high = result["loss_ci95_pp"]
    n, half = result["n_images"]["val"], (high - low) / 2
    allowed = finite_loss_pp(result)
    columns = [_column("Loss", n, half)] if n else []
    values = {
        "n": n,
        "half": half,
        "low": low,
        "high": high,
        "allowed": allowed,
        "to_tell": _to_tell(result, allowed) if n else None,
        "confidence": result["budget"]["confidence"],
        "class_limit": result["budget"]["max_class_loss_pp"],
        "refusals": None,
        "wanted": _WANTED_PP,
        "n_first": _first(result),
        "command": commands["measure"],
    }
    absent: list[Absent] = []
    title = "How often images of none of the classes are refused"
    if refusals is None:
        why = subject.lacks.get("refusals", "the run has no rule that refuses them")
        absent.append(Absent(title, why, commands["unknown"]))
    else:
        values["refusals"], more = _refused(refusals)
        columns += more if n else []
        if not refusals.curve:
            why = "the rule does not note it, or was fitted without images of other things"
            absent.append(Absent("The rejection curve", why, commands["unknown"]))
    values["tables"] = columns
    return Section("budget", "Unknowns and budget", values), tuple(absent)


def _column(what: str, n: int, half_pp: float) -> _Column:
    return _Column(what, n, {pp: images_needed(n, half_pp, pp) for pp in _WANTED_PP})


def _refused(refusals: Refusals) -> tuple[dict[str, Any], list[_Column]]:
    """What the template shows of a rule, and how many images would tell more of it."""
    figures = refusals.figures

    def share(name: str, n: int) -> tuple[float, float, float] | None:
        value = figures.get(name)
        if value is None or not n or not 0 <= value <= 1:
            return None
        return float(value), *share_interval(float(value), n)

    n, n_unknown = (_count(figures.get(name)) for name in ("n", "n_unknown"))
    reject, accept = share("false_reject", n), share("false_accept", n_unknown)
    point = (reject[0], accept[0]) if reject and accept else None
    shown = {
        "n": n,
        "n_unknown": n_unknown,
        "reject": reject or (0.0, 0.0, 1.0),
        "accept": accept,
        "auroc": figures.get("auroc"),
        "chart": rejection_curves(refusals.curve, point) if refusals.curve and point else "",
        "rows": _at(refusals.curve),
    }
    columns = [
        _column(what, count, 50 * (found[2] - found[1]))
        for what, count, found in (
            ("False rejects", n, reject),
            ("False accepts", n_unknown, accept),
        )
        if found
    ]
    return shown, columns


def _count(value: float | None) -> int:
    """A number of images; none where a file, which may be anybody's, tells what cannot be."""
    return int(value) if value is not None and 0 <= value <= _MOST_IMAGES else 0


def _at(curve: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """The points of a curve nearest below some shares of false rejects."""
    rows = []
    for wanted in _REFUSED:
        below = [point for point in curve if point[0] <= wanted + 1e-9]
        if below and max(below) not in rows:
            rows.append(max(below))
    return rows


def _first(result: Mapping[str, Any]) -> int:
    """How many images would tell a loss to ± 2 points, if one in twenty answers changed."""
    changed = max(0.05, abs(result["expected_loss_pp"]) / 100)
    return math.ceil(_Z * _Z * changed / 0.02**2)


def _to_tell(result: Mapping[str, Any], allowed: float | None) -> int | None:
    """How many images would tell whether the budget holds, were the loss what it seems.

    None where they tell already, or never would.
    """
    low, high = result["loss_ci95_pp"]
    middle, n = (low + high) / 2, result["n_images"]["val"]
    if allowed is None or not low <= allowed < high or middle == allowed:
        return None
    return images_needed(n, high - middle, abs(allowed - middle))
