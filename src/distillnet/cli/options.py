"""The options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.job.distillation import METHODS, SURGEON
from distillnet.search import SCORES

__all__ = [
    "BatchOpt",
    "DataOpt",
    "Device",
    "DeviceOpt",
    "InputSizeOpt",
    "JsonOpt",
    "MeanOpt",
    "Method",
    "ModelArg",
    "NamesOpt",
    "Runtime",
    "ScoreName",
    "SeedOpt",
    "StdOpt",
    "WeightsOpt",
    "WorkersOpt",
]


class Runtime(StrEnum):
    """What runs a distilled network."""

    torch = "torch"
    onnx = "onnx"
    c = "c"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Method = StrEnum("Method", {name: name for name in METHODS})  # type: ignore[misc]
ScoreName = StrEnum("ScoreName", {name: name for name in (SURGEON, *SCORES)})  # type: ignore[misc]

ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (runs the file) or FILE.pt2.",
    ),
]
WeightsOpt = Annotated[
    Path | None,
    typer.Option(
        help="Weights to load: safetensors, or a torch state dict.",
        show_default="MODEL's own, downloaded",
    ),
]
DataOpt = Annotated[
    Path, typer.Option(help="Images: DIR/<class>/<image>, or train/ and val/ of that form.")
]
InputSizeOpt = Annotated[
    int | None,
    typer.Option(help="Side of the network's input, in pixels.", show_default="MODEL's own"),
]
MeanOpt = Annotated[
    str | None,
    typer.Option(
        help="Mean per channel, values 0..1, e.g. 0.485,0.456,0.406.", show_default="MODEL's own"
    ),
]
StdOpt = Annotated[
    str | None,
    typer.Option(help="Deviation per channel, values 0..1.", show_default="MODEL's own"),
]
NamesOpt = Annotated[
    Path | None,
    typer.Option(
        help="TSV with a column index and any number of alias columns.",
        show_default="MODEL's own, ImageNet's for 1,000 outputs, else numbers",
    ),
]
BatchOpt = Annotated[int, typer.Option(min=1, help="Images computed at once.")]
WorkersOpt = Annotated[int, typer.Option(min=0, help="Processes that read images; 0: this one.")]
DeviceOpt = Annotated[Device, typer.Option(help="Where to compute.")]
SeedOpt = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
JsonOpt = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object and nothing else.", show_default="off"),
]
