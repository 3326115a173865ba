"""What several commands do and ask for alike."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.groups import MISSION, OUTPUT
from distillnet.cli.output import (
    percent,
    print_json,
    print_line,
    print_table,
    warn,
    warn_unreadable,
)
from distillnet.cli.result_table import print_result
from distillnet.files import new_file
from distillnet.search.budget import in_points

if TYPE_CHECKING:
    from distillnet.images import Folders, ImageSet
    from distillnet.job.distillation import Distillation

__all__ = [
    "FiguresOpt",
    "ImageClassesOpt",
    "OpenPageOpt",
    "kept_apart",
    "print_accuracies",
    "print_run",
    "run_folder",
    "write_figures",
]

ImageClassesOpt = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="The classes to keep, as `distill` takes them.",
        show_default="all folders in --data",
        rich_help_panel=MISSION,
    ),
]
FiguresOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the figures to this JSON file.",
        show_default="none",
        rich_help_panel=OUTPUT,
    ),
]
OpenPageOpt = Annotated[
    bool,
    typer.Option(
        "--open",
        help="Open the page in the browser.",
        show_default="off",
        rich_help_panel=OUTPUT,
    ),
]


def print_accuracies(run: Path, values: Mapping[str, Any]) -> None:
    """Print a run's accuracy on images, from what `evaluate --json` prints."""
    rows = [[name, percent(share)] for name, share in values["per_class"].items()]
    rows.append(["all", percent(values["accuracy"])])
    print_table(f"{run} on {values['n']} images", ["class", "accuracy"], rows)


def write_figures(values: Mapping[str, Any], out: Path | None) -> None:
    """Put figures into a JSON file, where one is asked for, in the place of an older one."""
    if out is not None:
        with new_file(out) as path:
            path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def kept_apart(folders: "Folders") -> "ImageSet":
    """The images to report on: those of val/ or test/ where there is one, else all."""
    return folders.val or folders.train


def print_run(done: "Distillation", out: Path, as_json: bool) -> None:
    """Warnings, then the figures of a run, as a table or as JSON."""
    from distillnet.job.results import result_json

    budget = done.options.budget
    warn_unreadable(done.unreadable)
    if not done.plan.keep and not done.found.met:
        warn(
            f"Nothing could be removed within {in_points(budget.max_loss_pp)} on the search "
            "images; this is the original network with its scores cut to the mission. More search "
            "images or a larger --max-loss may help."
        )
    for option, wanted, reached in (
        ("--target-macs", budget.target_macs, done.mac_ratio),
        ("--target-params", budget.target_params, done.param_ratio),
    ):
        if wanted is not None and reached < wanted:
            warn(f"{option} {wanted:g} cannot be reached by removing channels; got {reached:.2f}.")
    if as_json:
        print_json(result_json(done))
    else:
        print_result(result_json(done))
        print_line(f"Written to {out}")


def run_folder(run: Path) -> Path:
    """The folder of a run; one that is packed is unpacked for as long as this process lives."""
    if run.is_dir():
        return run
    from distillnet.deploy.packing import unpacked_run

    return unpacked_run(run)
