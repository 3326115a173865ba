"""Options of commands that take a run: images of other things, and its original's weights."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.cli.groups import MISSION, NETWORK

if TYPE_CHECKING:
    from distillnet.job.runs import Run

__all__ = ["STRANGERS", "UnknownOpt", "WeightsOpt", "with_weights"]

STRANGERS = "a folder with folders of images of anything but the mission's classes"

UnknownOpt = Annotated[
    Path | None,
    typer.Option(
        "--unknown",
        metavar="DIR",
        help="Images of what is none of the mission's classes, in folders of any names: DIR/empty "
        "scene/1.jpg. Folders of the mission's classes are left alone.",
        show_default="none",
        rich_help_panel=MISSION,
    ),
]
WeightsOpt = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The original's weights, if the run does not say where they are.",
        show_default="where they were when RUN was made",
        rich_help_panel=NETWORK,
    ),
]


def with_weights(opened: "Run", weights: Path | None) -> "Run":
    """A run whose original has its weights in this file."""
    if weights is None:
        return opened
    return replace(opened, sources={**opened.sources, "weights": str(weights)})
