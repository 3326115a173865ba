"""Measured rows beside the paper's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from distillnet.reproduce.measuring import Row

__all__ = ["Line", "lines_of"]

_WHAT = {
    "table2": "inception MACs, before over after",
    "table3": "parameters removed, %",
    "table4": "time, before over after",
}


@dataclass(frozen=True)
class Line:
    """A row of a table: means over the sets of classes, and the deviation of one set.

    Attributes:
        row: classes that are left (table 2) or removed.
        what: the figure that is compared.
        better: whether it is at least the paper's, at no more loss than was allowed.
    """

    network: str
    row: int
    what: str
    paper: float
    ours: float
    ours_deviation: float
    mac_ratio: float
    loss_pp: float
    loss_deviation_pp: float
    sets: int
    better: bool
    seconds: float


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The lines of one table."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.job.network, row.job.group), []).append(row)
    lines = []
    for (network, size), members in groups.items():
        job = members[0].job
        ours = [_compared(row) for row in members]
        loss = [_number(row, "loss_pp") for row in members]
        lines.append(
            Line(
                network, size, _WHAT[job.table], job.paper, fmean(ours), _deviation(ours),
                fmean(_number(row, "mac_ratio") for row in members), fmean(loss),
                _deviation(loss), len(members),
                # Both as the paper prints them.
                fmean(ours) >= job.paper - 1e-9 and fmean(loss) <= job.max_loss_pp + 1e-9,
                fmean(float(row.figures["seconds"]["total"]) for row in members),  # type: ignore[index]
            )
        )  # fmt: skip
    return lines


def _compared(row: Row) -> float:
    if row.job.table == "table2":
        return _number(row, "inception_mac_ratio")
    if row.job.table == "table4":
        return _number(row, "time_ratio")
    return 100 * (1 - 1 / _number(row, "param_ratio"))


def _number(row: Row, name: str) -> float:
    value = row.figures[name]
    return float(value) if isinstance(value, int | float) else math.nan


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
