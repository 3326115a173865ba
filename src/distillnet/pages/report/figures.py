"""The report's charts, each from figures to an ``<svg>``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from distillnet.job.front_points import FrontPoint, plot_front
from distillnet.pages.layers import Layer
from distillnet.pages.report.charts import AFTER, BAD, BEFORE, TEXT, chart, shortened

__all__ = [
    "class_bars",
    "front_points",
    "histogram",
    "latency_bars",
    "layer_bars",
    "rejection_curves",
]

_ROW = 0.19  # inches that a layer's row has
_BINS = 60


def front_points(
    points: Sequence[FrontPoint], budget_pp: float | None, *, measured: bool = True
) -> str:
    """Loss against what there is to compute, by network of the front."""

    def draw(axes: Any) -> None:
        plot_front(points, axes, budget_pp, (BEFORE, AFTER, BAD), measured=measured)

    return chart(draw, 7.2, 4.0, "front")


def latency_bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """Median times of one image by runtime, before and after, with 5 to 95 % of the runs."""

    def draw(axes: Any) -> None:
        for at, row in enumerate(rows):
            for offset, colour, entry in (
                (-0.2, BEFORE, row["before"]),
                (0.2, AFTER, row["after"]),
            ):
                low, middle, high = entry
                axes.barh(
                    at + offset, middle, height=0.36, color=colour,
                    xerr=[[middle - low], [high - middle]],
                    error_kw={"elinewidth": 0.8, "capsize": 2, "ecolor": TEXT},
                )  # fmt: skip
                axes.annotate(f"  {middle:.2f} ms", (high, at + offset), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [row["runtime"] for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms for one image; lines: 5 to 95 % of the runs")

    return chart(draw, 7.2, 0.8 + 0.6 * len(rows), "latency")


def class_bars(per_class: Mapping[str, tuple[float, float]]) -> str:
    """How often each class is right, before and after."""

    def draw(axes: Any) -> None:
        for at, shares in enumerate(per_class.values()):
            for offset, colour, share in zip((-0.2, 0.2), (BEFORE, AFTER), shares, strict=True):
                axes.barh(at + offset, 100 * share, height=0.36, color=colour)
        axes.set_yticks(range(len(per_class)), [shortened(name) for name in per_class])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% right among the classes")

    return chart(draw, 7.2, 0.7 + 0.42 * len(per_class), "classes")


def rejection_curves(curve: Sequence[tuple[float, float]], point: tuple[float, float]) -> str:
    """False accepts against false rejects by threshold, and where a rule stands; shares."""

    def draw(axes: Any) -> None:
        refused, accepted = (
            [100 * share for share in shares] for shares in zip(*curve, strict=True)
        )
        axes.plot(refused, accepted, color=AFTER, linewidth=1.6, drawstyle="steps-post")
        axes.plot(100 * point[0], 100 * point[1], "o", color=BAD, markersize=8, zorder=3)
        axes.annotate(
            f"  {100 * point[0]:.1f} % refused, {100 * point[1]:.1f} % accepted",
            (100 * point[0], 100 * point[1]), textcoords="offset points", xytext=(8, 6), fontsize=8,
        )  # fmt: skip
        axes.set_xlim(-1, 100)
        axes.set_ylim(-1, 100)
        axes.set_xlabel("% of the mission's images refused")
        axes.set_ylabel("% of other images accepted")

    return chart(draw, 5.0, 4.0, "rejection")


def layer_bars(layers: Sequence[Layer]) -> str:
    """MACs of each layer before and after, in the order of execution."""

    def draw(axes: Any) -> None:
        places = np.arange(len(layers))
        axes.barh(places, [layer.macs[0] / 1e6 for layer in layers], 0.86, color=BEFORE)
        axes.barh(places, [layer.macs[1] / 1e6 for layer in layers], 0.5, color=AFTER)
        axes.set_yticks(places, [shortened(layer.name) for layer in layers], fontsize=7.5)
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("million MACs for one image")

    return chart(draw, 7.2, 0.7 + _ROW * len(layers), "layers")


def histogram(values: Tensor, threshold: float | None, prefix: str, what: str) -> str:
    """How often values occur, exact zeros apart from all others; the scale is logarithmic."""
    flat = values.flatten().double().numpy()
    n_zeros, others = int((flat == 0).sum()), flat[flat != 0]
    low, high = (float(others.min()), float(others.max())) if len(others) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0) or 1.0
    counts, edges = np.histogram(others, bins=_BINS, range=(low, high))
    most = max(1.0, np.log10(1 + max(n_zeros, int(counts.max()))))

    def draw(axes: Any) -> None:
        axes.stairs(np.log10(1 + counts), edges, fill=True, color=AFTER)
        if n_zeros:
            axes.bar(0, np.log10(1 + n_zeros), (high - low) / _BINS, color=BEFORE)
        if threshold is not None and low <= threshold <= high:
            axes.axvline(threshold, color=BAD, linewidth=1, linestyle="--")
        # Ticks that are given: to find good ones takes matplotlib longer than all the rest.
        powers = range(0, int(most) + 1, 2 if most >= 4 else 1)
        axes.set_yticks(list(powers), ["1" if p == 0 else f"1e{p}" for p in powers])
        axes.set_xticks(*_ticks(low, high))
        axes.set_ylim(0, 1.03 * most)
        axes.set_xlim(low - 0.02 * (high - low), high)
        axes.set_xlabel(what, fontsize=8)
        axes.tick_params(labelsize=7)

    return chart(draw, 3.6, 1.6, prefix, (0.42, 0.42, 0.25, 0.06))


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Zero, and the ends that are not near it."""
    wide = high - low
    places = [x for x in (low, high) if abs(x) > 0.15 * wide] + [0.0]
    return places, [_number(x) for x in places]


def _number(x: float) -> str:
    """Three digits, and none after the point from a hundred on."""
    return (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}").replace("-", "−")
