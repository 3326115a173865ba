"""Networks for other budgets as points of a picture: loss against what is left to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from distillnet.errors import InputError
from distillnet.job.figures import optional
from distillnet.search import Verdict, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FrontPoint",
    "plot_front",
    "plot_layers",
    "plot_run",
    "points_of",
    "verdict_of",
]

_COLOURS = ("#8896a5", "#2066a8", "#b3261e")


@dataclass(frozen=True)
class FrontPoint:
    """One network; losses in percentage points.

    Attributes:
        share: of the original's work that is left, as the search counts work (``work_ratio``), or
            of its MACs in runs that do not note it.
        expected_pp: by the search, with its standard error ``uncertain_pp``.
        found_pp: on held-out images, in 95 of 100 cases from ``low_pp`` to ``high_pp``.
        own: whether it is the run's network.
    """

    share: float
    expected_pp: float
    uncertain_pp: float
    found_pp: float
    low_pp: float
    high_pp: float
    own: bool = False


def points_of(
    result: Mapping[str, Any], front: Sequence[Mapping[str, Any]]
) -> tuple[FrontPoint, ...]:
    """A run's front, the smallest network first, and among it or beside it the run's own.

    Args:
        result, front: figures as in ``result.json``, of the run and of each network on its front.
    """
    by_work = all(one.get("work_ratio") for one in (result, *front))

    def point(one: Mapping[str, Any], *, own: bool) -> FrontPoint:
        search = one["search"]
        expected, (low, high) = estimate(verdict_of(search)), one["loss_ci95_pp"]
        ratio = one["work_ratio"] if by_work else one["mac_ratio"]
        return FrontPoint(
            1 / ratio, expected.loss_pp, expected.uncertain_pp, one["loss_pp"], low, high, own
        )

    mine = point(result, own=True)
    others = [point(one, own=False) for one in front]
    rest = [other for other in others if replace(other, own=True) != mine]
    return tuple(sorted([mine, *rest], key=lambda p: p.share))


def verdict_of(search: Mapping[str, Any]) -> Verdict:
    """What the search said of a network, from ``search`` in its ``result.json``."""
    known = {field.name: search[field.name] for field in fields(Verdict) if field.name in search}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Verdict(**known | lists)


def plot_front(
    points: Sequence[FrontPoint],
    axes: "Axes",
    budget_pp: float | None = None,
    colours: tuple[str, str, str] = _COLOURS,
    *,
    measured: bool = True,
) -> None:
    """Loss against work, by network: what was expected, and what was found with its interval.

    Args:
        colours: of what was expected, what was found, and the budget.
        measured: whether there were held-out images to find a loss on.
    """
    before, after, bad = colours
    share = [100 * point.share for point in points]
    axes.errorbar(
        share, [point.expected_pp for point in points],
        yerr=[point.uncertain_pp for point in points], fmt="o-", color=before, markersize=5,
        capsize=2, linewidth=1, label="expected by the search, ± its standard error",
    )  # fmt: skip
    if measured:
        axes.errorbar(
            share, [point.found_pp for point in points],
            yerr=[
                [point.found_pp - point.low_pp for point in points],
                [point.high_pp - point.found_pp for point in points],
            ],
            fmt="s", color=after, markersize=4, capsize=3, linewidth=1,
            label="found on held-out images, 95 % interval",
        )  # fmt: skip
    axes.plot(
        [100 * point.share for point in points if point.own],
        [point.found_pp if measured else point.expected_pp for point in points if point.own],
        "o", markersize=15, markerfacecolor="none", markeredgecolor=after, markeredgewidth=1.6,
        label="this run",
    )  # fmt: skip
    if budget_pp is not None:
        axes.axhline(budget_pp, color=bad, linewidth=1, linestyle="--", label="the budget")
    axes.set_xlim(0, 1.08 * max(share))  # with room for the circle
    axes.set_xlabel("% of the original that is left to do")
    axes.set_ylabel("points of accuracy lost")
    axes.figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)


def plot_layers(layers: Sequence[Mapping[str, Any]], axes: "Axes") -> None:
    """Which share of each layer's neurons is kept.

    Args:
        layers: as in ``result.json``.
    """
    kept = [100 * layer["neurons_kept"] / layer["neurons"] for layer in layers]
    axes.barh(range(len(layers)), [100.0] * len(layers), 0.8, color="#e3e7ec")
    axes.barh(range(len(layers)), kept, 0.8, color=_COLOURS[1])
    axes.set_yticks(range(len(layers)), [str(layer["site"]) for layer in layers], fontsize=7)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("% of the neurons kept")


def plot_run(
    points: Sequence[FrontPoint],
    layers: Sequence[Mapping[str, Any]],
    budget_pp: float | None,
    axes: "Sequence[Axes] | None",
) -> "tuple[Axes, Axes]":
    """The front and the layers on two axes, given or new."""
    pyplot = optional("matplotlib.pyplot")
    if axes is None:
        height = max(4.0, 1.0 + 0.14 * len(layers))
        axes = pyplot.subplots(1, 2, figsize=(11, height), layout="constrained")[1]
    if len(axes) != 2:
        raise InputError(f"found {len(axes)} axes to plot on; expected two, or none")
    plot_front(points, axes[0], budget_pp)
    plot_layers(layers, axes[1])
    return axes[0], axes[1]
