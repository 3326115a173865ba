"""A picture of ``bench.json``: bars of both networks, by runtime."""

from pathlib import Path
from typing import Any

from distillnet.deploy.extras import is_installed
from distillnet.deploy.networks import OURS, PLAIN
from distillnet.files import new_file

__all__ = ["draw_bars"]

_COLOURS = {
    ("original", PLAIN): "#9aa5b1",
    ("original", OURS): "#c9d1d9",
    ("distilled", OURS): "#2066a8",
}


def draw_bars(values: dict[str, Any], path: Path) -> bool:
    """Draw median times of one image as a PNG; False where matplotlib is not installed."""
    if not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure  # its import takes a second

    entries = [entry for entry in values["entries"] if entry["batch"] == 1]
    runtimes = list(dict.fromkeys(entry["runtime"] for entry in entries))
    figure = Figure(figsize=(7, 1.7 + 1.1 * len(runtimes)), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for row, runtime in enumerate(runtimes):
        bars = [entry for entry in entries if entry["runtime"] == runtime]
        for i, entry in enumerate(bars):
            height = 0.8 / len(bars)
            at = row + height * (i - (len(bars) - 1) / 2)
            height_px, width_px = entry["input_size"]
            who = f"{entry['network']}, {entry['written_by']}, {height_px} x {width_px}"
            axes.barh(
                at,
                entry["median_ms"],
                height=0.9 * height,
                color=_COLOURS[entry["network"], entry["written_by"]],
                label=None if who in labelled else who,
                xerr=[
                    [entry["median_ms"] - entry["p05_ms"]],
                    [entry["p95_ms"] - entry["median_ms"]],
                ],
                error_kw={"elinewidth": 0.8, "capsize": 2},
            )
            labelled.add(who)
            text = f" {entry['median_ms']:.2f}"
            if entry["network"] != "original":
                text += f" ms, {values['time_ratio'][runtime]:.2f} x"
            axes.annotate(text, (entry["p95_ms"], at), va="center", fontsize=9)
    axes.set_yticks(range(len(runtimes)), runtimes)
    axes.invert_yaxis()
    axes.set_xlabel("ms for one image: median, and 5 to 95 % of the runs")
    title = f"{values['machine']}, threads used: {values['threads']}, float32"
    axes.set_title(f"{values['run']}: {title}" if values["run"] else title, fontsize=9)
    axes.margins(x=0.18)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)  # off the bars
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with new_file(path) as work:
        figure.savefig(work, format="png", dpi=150)
    return True
