"""The command that sets distillation beside the paper's two naive ways."""

import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.asked import asked_for
from distillnet.cli.common import FiguresOpt, ImageClassesOpt, write_figures
from distillnet.cli.groups import SEARCH, SELDOM, grouped
from distillnet.cli.options import (
    ComputeOptions,
    ImageOptions,
    JsonOpt,
    ModelArg,
    NetworkOptions,
)
from distillnet.cli.output import print_json, print_line, print_table, progress, warn
from distillnet.cli.search_options import BudgetOptions, SearchOptions, job_options
from distillnet.errors import InputError
from distillnet.files import check_writable

if TYPE_CHECKING:
    from distillnet.reproduce.baselines import Baseline

__all__ = ["baselines_command"]


class Way(StrEnum):
    """A way to a network for a few classes."""

    head = "head"
    small = "small"
    distill = "distill"
    tune = "tune"


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Which ways are measured, and how long those train that do."""

    only: Annotated[
        list[Way] | None,
        typer.Option(
            metavar="|".join(Way),
            help="Which row to measure; may be given several times.",
            show_default="all",
            rich_help_panel=SEARCH,
        ),
    ] = None
    head_epochs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over the images that the new head is trained for.",
            rich_help_panel=SELDOM,
        ),
    ] = 30
    small_epochs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over the images that the small network is trained for.",
            rich_help_panel=SELDOM,
        ),
    ] = 30

    @property
    def ways(self) -> list[Way]:
        """Those that were asked for."""
        return list(self.only or Way)


@grouped
def baselines_command(
    *,
    model: ModelArg,
    images: ImageOptions,
    classes: ImageClassesOpt = None,
    asked: RowOptions,
    out: FiguresOpt = None,
    budget: BudgetOptions,
    network: NetworkOptions,
    search: SearchOptions,
    compute: ComputeOptions,
    as_json: JsonOpt = False,
) -> None:
    """Compare distillation with the paper's two naive ways, and the time that each takes.

    Those are to replace the head and fine-tune it, or to train a small network on the mission's
    images alone. All are given the same images and judged on the same held-out ones.
    """
    if search.tune:
        raise InputError("found --tune, which is one of the rows here; pass --only tune instead")
    if Way.tune in asked.ways and search.method.value != "best":
        raise InputError(
            f"found --method {search.method.value}, with which nothing is tuned; leave that row "
            "out with --only, or pass --method best"
        )
    options = job_options(budget, search, network, compute)
    if out is not None:
        check_writable(out)
    load = asked_for(model, network, images, classes, out)
    from dataclasses import replace

    from distillnet.job.distill import distill
    from distillnet.reproduce import baselines

    rows: list[Baseline] = []
    with progress() as on_progress, tempfile.TemporaryDirectory() as name:
        loaded, mission, split = load(search.seed)

        def report(done: int, of: int) -> None:
            on_progress("train", done, of)

        def add(row: "Baseline") -> None:
            """Keep a row, and say it now: the others may take hours."""
            rows.append(row)
            warn(
                f"{row.name}: accuracy {100 * row.accuracy:.1f} %, {row.macs / 1e6:,.1f} million "
                f"MACs, {row.params:,} parameters, in {row.seconds:,.0f} s"
            )

        add(baselines.original_row(loaded, mission, split, options))
        if Way.head in asked.ways:
            add(
                baselines.replaced_head(
                    loaded, mission, split, options, epochs=asked.head_epochs, on_epoch=report
                )
            )
        if Way.small in asked.ways:
            recipe = replace(baselines.SMALL_RECIPE, epochs=asked.small_epochs)
            add(
                baselines.small_network_alone(
                    loaded, mission, split, options, recipe=recipe, on_epoch=report
                )
            )
        for way in (Way.distill, Way.tune):
            if way not in asked.ways:
                continue
            folder = Path(name) / way.value
            folder.mkdir()
            done = distill(
                loaded, mission, split, folder, replace(options, tune=way is Way.tune),
                on_progress=on_progress,
            )  # fmt: skip
            add(baselines.distilled_row(done))
    values = _values(model, list(mission.names), len(split.val), rows)
    write_figures(values, out)
    if as_json:
        print_json(values)
    else:
        _print(values)


def _values(model: str, names: list[str], n_val: int, rows: "list[Baseline]") -> dict[str, Any]:
    return {
        "model": model,
        "classes": names,
        "n_val": n_val,
        "rows": [asdict(row) for row in rows],
    }


def _print(values: dict[str, Any]) -> None:
    most = max(row["macs"] for row in values["rows"])
    print_table(
        f"{values['model']}, {len(values['classes'])} classes, {values['n_val']} images held out",
        ["way", "accuracy", "MACs (M)", "fewer", "params", "seconds", "epochs"],
        [
            [
                row["name"],
                f"{100 * row['accuracy']:.1f} %",
                f"{row['macs'] / 1e6:,.1f}",
                f"{most / row['macs']:.2f} x",
                f"{row['params']:,}",
                f"{row['seconds']:,.1f}",
                "-" if row["epochs"] is None else str(row["epochs"]),
            ]
            for row in values["rows"]
        ],
        1,
    )
    print_line(
        "The new head and the small network are trained on labels; of distilled networks only the "
        "last layer learns from them. Seconds: from the images on disk to the network."
    )
