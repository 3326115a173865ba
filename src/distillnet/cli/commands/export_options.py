"""The options of ``export``: what to write, and how C is laid out."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.groups import IMAGES, NETWORK, OUTPUT, SELDOM
from distillnet.cli.options import OriginalOpt

__all__ = ["COptions", "FormOptions", "Format", "Target"]


class Format(StrEnum):
    """What ``export`` writes."""

    onnx = "onnx"
    pt2 = "pt2"
    c = "c"


class Target(StrEnum):
    """What ``--format c`` is laid out for; ``deploy.int8.c.BLOCKS``."""

    vectors = "vectors"
    cortex_m = "cortex-m"


_PREFIX = "model"  # of names in C


@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """What to write, how precisely, and by which images it is checked."""

    format_: Annotated[
        Format, typer.Option("--format", help="What to write.", rich_help_panel=OUTPUT)
    ] = Format.onnx
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The file to write, or for c the folder.",
            show_default="RUN/model.onnx, model-fp16.onnx, model-int8.onnx, export.pt2 or c",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Fix the batch size.",
            show_default="any size",
            rich_help_panel=SELDOM,
        ),
    ] = None
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Accept uint8 RGB images (N, H, W, 3) of the input size, and normalise them in "
            "the network.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    with_unknown: Annotated[
        bool,
        typer.Option(
            "--with-unknown",
            help="Add a score, by the rule that `unknown` fitted, that is largest for images of "
            "none of the classes.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantise to 8 bits (onnx, c).",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16",
            help="Store weights in half precision (onnx).",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The images that the run was distilled on; the file is checked with them.",
            show_default="where they were when RUN was made",
            rich_help_panel=IMAGES,
        ),
    ] = None
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Accuracy that may be lost in total, from the original network to the --int8 or "
            "--fp16 file, in percentage points.",
            show_default="the run's",
            rich_help_panel=NETWORK,
        ),
    ] = None

    def folder(self, run: Path) -> Path:
        """Where C is written."""
        return self.out or run / "c"

    def check(self, run: Path, c: "COptions") -> None:
        """Raise typer.BadParameter where options do not go together."""
        if self.int8 and self.fp16:
            raise typer.BadParameter("--int8 and --fp16 together; expected one of them")
        if run.is_file() and self.out is None:
            raise typer.BadParameter(f"--out is missing; it is required where RUN is a file, {run}")
        is_c = self.format_ is Format.c
        if c.packed and (not is_c or self.int8 or c.as_missions or not run.is_file()):
            raise typer.BadParameter(
                "--packed needs --format c in float32, without --switchable, and as RUN a file "
                "that `distillnet pack` wrote"
            )
        if is_c:
            self._check_c(c)
        elif c != COptions(packed=c.packed):
            raise typer.BadParameter(
                "--prefix, --switchable, --loadable, --mission, --model and --target need "
                "--format c"
            )

    def _check_c(self, c: "COptions") -> None:
        of_int8 = "needs --int8: in float32 the C is compared on noise"
        others = {
            "--fp16": (self.fp16, "is for ONNX; weights of C are float32, or 8 bits with --int8"),
            "--batch": (self.batch is not None, "is for ONNX and pt2; C takes one image at a time"),
            "--with-preprocessing": (
                self.with_preprocessing,
                "is for ONNX and pt2; C always has it beside the network, in preprocess.c",
            ),
            "--data": (self.data is not None and not self.int8, of_int8),
            "--max-loss": (self.max_loss is not None and not self.int8, of_int8),
            "--loadable": (self.int8 and c.loadable, "needs float32; leave out --int8"),
        }
        for name, (given, why) in others.items():
            if given:
                raise typer.BadParameter(f"found {name} with --format c; it {why}")
        if c.model is not None and not c.as_missions:
            raise typer.BadParameter("--model needs --switchable; nothing else needs the original")


@dataclass(frozen=True, kw_only=True)
class COptions:
    """What ``--format c`` writes."""

    prefix: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Prefix of all names in the C code (c).", rich_help_panel=SELDOM
        ),
    ] = _PREFIX
    as_missions: Annotated[
        bool,
        typer.Option(
            "--switchable",
            help="Keep all weights, so that the C code can switch between missions; needs runs of "
            "--method paper or --no-split (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False
    loadable: Annotated[
        bool,
        typer.Option(
            "--loadable",
            help="With --switchable: also write code that loads missions later, from what `mission "
            "block` makes of packages (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False
    mission: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Another run of the same network, to be one of the missions; may be given several "
            "times (c).",
            show_default="none",
            rich_help_panel=SELDOM,
        ),
    ] = None
    target: Annotated[
        Target,
        typer.Option(
            help="What to lay the code out for: processors with vector units, or microcontrollers, "
            "for which steps take turns row by row, in a fraction of the memory, and no channels "
            "are padded in 8 bits (c).",
            rich_help_panel=SELDOM,
        ),
    ] = Target.vectors
    packed: Annotated[
        bool,
        typer.Option(
            "--packed",
            help="Keep the weights of a packed run packed in the C code, which decodes them into "
            "memory when a device starts; RUN is a file that `pack` wrote (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False
    model: OriginalOpt = None

    @property
    def others(self) -> tuple[Path, ...]:
        """Runs that become missions beside the first."""
        return tuple(self.mission or ())
