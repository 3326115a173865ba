"""A picture of a table: the paper's bars and those that were measured here."""

from collections.abc import Sequence
from pathlib import Path

from distillnet.deploy.extras import is_installed
from distillnet.files import new_file
from distillnet.reproduce.paper import MODULES
from distillnet.reproduce.tables import Line

__all__ = ["draw_table"]

_PAPER, _HERE, _WORSE, _MACS = "#9aa5b1", "#2066a8", "#c2571a", "#7fb2dd"


def draw_table(title: str, lines: Sequence[Line], path: Path) -> bool:
    """Draw lines as a PNG; False where matplotlib is not installed."""
    if not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure  # its import takes a second

    detailed = [line for line in lines if line.modules]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(lines) + 2.6 * len(detailed)), layout="constrained")
    heights = [1.2 + 0.5 * len(lines), *[2.6] * len(detailed)]
    first, *others = figure.subplots(
        1 + len(detailed), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    places = range(len(lines))
    first.barh([i - 0.2 for i in places], [line.paper for line in lines], 0.36, color=_PAPER,
               label="the paper")  # fmt: skip
    first.barh(
        [i + 0.2 for i in places],
        [line.ours for line in lines],
        0.36,
        xerr=[line.ours_deviation for line in lines] if lines[0].sets > 1 else None,
        color=[_HERE if line.better else _WORSE for line in lines],
        label="here; orange: not as good",
    )
    for i, line in enumerate(lines):
        end = line.ours + (line.ours_deviation if line.sets > 1 else 0)
        first.annotate(f" {line.ours:.2f}, loss {line.loss_pp:+.2f} pp", (end, i + 0.2),
                       va="center", fontsize=8)  # fmt: skip
    first.set_yticks(places, [_name(line) for line in lines])
    first.invert_yaxis()
    first.set_xlabel(lines[0].what)
    first.set_title(title, fontsize=10)
    first.margins(x=0.3)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper right", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    for axes, line in zip(others, detailed, strict=True):
        assert line.modules is not None
        kinds = (("the paper, neurons", line.modules.paper, _PAPER),
                 ("here, neurons", line.modules.ours, _HERE),
                 ("here, MACs", line.modules.macs, _MACS))  # fmt: skip
        for i, (label, values, colour) in enumerate(kinds):
            axes.bar([n + 0.27 * (i - 1) for n in range(len(MODULES))],
                     [value or 0 for value in values], 0.25, color=colour, label=label)  # fmt: skip
        axes.set_xticks(range(len(MODULES)), [f"I{name.upper()}" for name in MODULES])
        axes.set_ylabel("before over after", fontsize=8)
        axes.set_title(f"{_name(line)}: each module", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    for axes in (first, *others):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    with new_file(path) as work:
        figure.savefig(work, format="png", dpi=130)
    return True


def _name(line: Line) -> str:
    how = "" if line.reading == "price" else f", {line.reading}"
    return f"{line.network}, {line.row}{how}"
