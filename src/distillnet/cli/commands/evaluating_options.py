"""The options of ``evaluate``: on which images, in which runtime, and beside what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.checks import check_file, check_folder
from distillnet.cli.groups import IMAGES, NETWORK
from distillnet.cli.missions.run_options import STRANGERS, UnknownOpt, WeightsOpt
from distillnet.cli.options import OriginalOpt, Runtime

__all__ = ["EvaluateOptions"]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """On which images a run is measured, what runs it, and what is measured beside it."""

    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images: DIR/CLASS/IMAGE, or train/ and val/ of that form, of which "
            "val/ is taken.",
            show_default="the images held out for the run's own figures",
            rich_help_panel=IMAGES,
        ),
    ] = None
    unknown: UnknownOpt = None
    compare_original: Annotated[
        bool,
        typer.Option(
            "--compare-original",
            help="With --unknown: run the original over the same images, too, and say how well its "
            "simple scores tell them apart.",
            show_default="off",
            rich_help_panel=IMAGES,
        ),
    ] = False
    model: OriginalOpt = None
    weights: WeightsOpt = None
    runtime: Annotated[
        Runtime, typer.Option(help="What runs the network.", rich_help_panel=NETWORK)
    ] = Runtime.torch
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What `export` wrote: a file for onnx, a folder for c.",
            show_default="RUN/model.onnx or RUN/c",
            rich_help_panel=NETWORK,
        ),
    ] = None
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Compile and run the folder of C (c); it is code, so it has to be yours or from "
            "somebody you trust.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False

    def check(self) -> None:
        """Raise where options do not go together, or name what is not there."""
        if self.file is not None and self.runtime is Runtime.torch:
            raise typer.BadParameter("--file needs --runtime onnx or c; torch reads RUN/model.pt2")
        if self.trust and self.runtime is not Runtime.c:
            raise typer.BadParameter("--trust needs --runtime c; nothing else here is code")
        if self.unknown is None and self.compare_original:
            raise typer.BadParameter("--compare-original needs --unknown")
        if not self.compare_original and (self.model is not None or self.weights is not None):
            raise typer.BadParameter("--model and --weights need --compare-original")
        check_file(self.weights, "--weights", "the weights that the run was made of")
        check_folder(self.data, "--data", "a folder with one folder of images per class in it")
        check_folder(self.unknown, "--unknown", STRANGERS)
