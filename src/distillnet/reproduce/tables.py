"""Measured rows beside the paper's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from distillnet.reproduce.measuring import Row
from distillnet.reproduce.paper import EMERGENCY, MODULES, SUBSETS, Inception

__all__ = ["Line", "Modules", "lines_of"]

_SPEEDUP = "inception MACs, before over after"
_PARTIAL = "MACs with partial removal, before over after"
_PARAMS = "parameters removed, %"
_TIME = "time, before over after"


@dataclass(frozen=True)
class Modules:
    """GoogLeNet's inception modules, means over the sets; see ``paper.Inception``.

    Attributes:
        paper: compression ratios in the order of ``paper.MODULES``.
        ours: the same measured; None where nothing is left of a module.
        macs: MACs of each module, before over after, which thinner layers lower as well.
        skipped_millions: of all modules' MACs.
    """

    paper: tuple[float, ...]
    ours: tuple[float | None, ...]
    macs: tuple[float, ...]
    paper_skipped_millions: int
    skipped_millions: float


@dataclass(frozen=True)
class Line:
    """A row of a table: means over the sets of classes, and the deviation of one set.

    Attributes:
        row: classes that are left (tables 1 and 2, readings) or removed.
        what: the figure that is compared.
        ideal: what the paper calls so; None where it says nothing.
        better: whether it is at least the paper's, at no more loss than was allowed.
        loss_ci95_pp: of a single set; None for several.
        worst_class_loss_pp: the mean of the sets' worst.
        n_images: for statistics, search and the final figures ("val"), the mean of the sets.
        ms: medians before and after, of a table of times.
    """

    network: str
    row: int
    what: str
    paper: float
    ideal: float | None
    ours: float
    ours_deviation: float
    better: bool
    mac_ratio: float
    param_ratio: float
    loss_pp: float
    loss_deviation_pp: float
    loss_ci95_pp: tuple[float, float] | None
    worst_class_loss_pp: float
    n_images: dict[str, float]
    sets: int
    classes: tuple[str, ...] | None
    seconds: float
    reading: str = "price"
    ms: tuple[float, float] | None = None
    modules: Modules | None = None


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The lines of one table."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.job.network, row.job.group, row.job.reading), []).append(row)
    return [_line(members) for members in groups.values()]


def _line(members: Sequence[Row]) -> Line:
    def mean(name: str) -> float:
        return fmean(_number(row, name) for row in members)

    job, figures = members[0].job, members[0].figures
    what, compared = _comparison(members[0])
    ours = [compared(row) for row in members]
    loss = [_number(row, "loss_pp") for row in members]
    alone = len(members) == 1
    return Line(
        network=job.network,
        row=job.group,
        what=what,
        paper=job.paper,
        ideal=job.ideal,
        ours=fmean(ours),
        ours_deviation=_deviation(ours),
        # Both as the paper prints them.
        better=fmean(ours) >= job.paper - 1e-9 and fmean(loss) <= job.max_loss_pp + 1e-9,
        mac_ratio=mean("mac_ratio"),
        param_ratio=mean("param_ratio"),
        loss_pp=fmean(loss),
        loss_deviation_pp=_deviation(loss),
        loss_ci95_pp=tuple(figures["loss_ci95_pp"]) if alone else None,
        worst_class_loss_pp=mean("worst_class_loss_pp"),
        n_images={
            part: fmean(float(row.figures["n_images"][part]) for row in members)
            for part in ("statistics", "search", "val")
        },
        sets=len(members),
        classes=job.classes if alone else None,
        seconds=fmean(float(row.figures["seconds"]["total"]) for row in members),
        reading=job.reading,
        ms=tuple(figures["ms"]) if alone and "ms" in figures else None,
        modules=_modules(members),
    )


def _comparison(row: Row) -> tuple[str, Callable[[Row], float]]:
    if row.job.table == "table4":
        return _TIME, lambda row: _number(row, "time_ratio")
    if row.job.table == "table3":
        return _PARAMS, lambda row: 100 * (1 - 1 / _number(row, "param_ratio"))
    if row.job.network == "googlenet":
        return _SPEEDUP, lambda row: _number(row, "inception_mac_ratio")
    return _PARTIAL, lambda row: _number(row, "mac_ratio_with_partial")


def _modules(members: Sequence[Row]) -> Modules | None:
    if any("modules" not in row.figures for row in members):
        return None
    job = members[0].job
    paper: Inception = EMERGENCY if job.table == "table1" else SUBSETS[job.group]
    macs = [row.figures["module_macs"] for row in members]
    return Modules(
        paper=paper.modules,
        ours=tuple(_mean_of([row.figures["modules"].get(m) for row in members]) for m in MODULES),
        macs=tuple(fmean(_ratio(b[m], a.get(m, 0)) for b, a in macs) for m in MODULES),
        paper_skipped_millions=paper.skipped_millions,
        skipped_millions=fmean((sum(b.values()) - sum(a.values())) / 1e6 for b, a in macs),
    )


def _mean_of(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _ratio(before: float, after: float) -> float:
    return before / after if after else before


def _number(row: Row, name: str) -> float:
    value = row.figures[name]
    return float(value) if isinstance(value, int | float) else math.nan


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
