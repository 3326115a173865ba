"""A picture of ``bench.json``: bars of both networks, by runtime."""

from pathlib import Path
from typing import Any

from distillnet.deploy.extras import is_installed
from distillnet.files import new_file

__all__ = ["draw_bars"]

_COLOURS = {"original": "#9aa5b1", "distilled": "#2066a8"}


def draw_bars(values: dict[str, Any], path: Path) -> bool:
    """Draw median times of one image as a PNG; False where matplotlib is not installed."""
    if not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure  # its import takes a second

    entries = [entry for entry in values["entries"] if entry["batch"] == 1]
    runtimes = list(dict.fromkeys(entry["runtime"] for entry in entries))
    figure = Figure(figsize=(7, 1.2 + 0.9 * len(runtimes)), layout="constrained")
    axes = figure.subplots()
    for entry in entries:
        row = runtimes.index(entry["runtime"])
        offset, is_original = 0.2, entry["network"] == "original"
        at = row - offset if is_original else row + offset
        axes.barh(
            at,
            entry["median_ms"],
            height=0.36,
            color=_COLOURS[entry["network"]],
            label=entry["network"] if row == 0 else None,
            xerr=[
                [entry["median_ms"] - entry["p05_ms"]],
                [entry["p95_ms"] - entry["median_ms"]],
            ],
            error_kw={"elinewidth": 0.8, "capsize": 2},
        )
        text = f" {entry['median_ms']:.2f}"
        if not is_original:
            text += f" ms, {values['time_ratio'][entry['runtime']]:.2f} x"
        axes.annotate(text, (entry["p95_ms"], at), va="center", fontsize=9)
    axes.set_yticks(range(len(runtimes)), runtimes)
    axes.invert_yaxis()
    axes.set_xlabel("ms for one image: median, and 5 to 95 % of the runs")
    axes.set_title(f"{values['machine']}, threads used: {values['threads']}", fontsize=9)
    axes.margins(x=0.18)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with new_file(path) as work:
        figure.savefig(work, format="png", dpi=150)
    return True
