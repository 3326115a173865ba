"""The options that several commands share, and the groups that they come in."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.atlas import open_atlas
from distillnet.classes import ClassTable, Mission
from distillnet.cli.common import kept_apart
from distillnet.errors import InputError
from distillnet.images import MAX_PIXELS, Folders, open_images
from distillnet.job.distillation import METHODS, SURGEON
from distillnet.job.partition import Images, split_images
from distillnet.models import Model, load_model
from distillnet.search import SCORES

__all__ = [
    "BatchOpt",
    "ComputeOptions",
    "DataOpt",
    "Device",
    "ImageOptions",
    "JsonOpt",
    "Method",
    "ModelArg",
    "NetworkOptions",
    "OverwriteOpt",
    "PixelsOpt",
    "RunArg",
    "Runtime",
    "ScoreName",
    "SeedOpt",
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
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
DataOpt = Annotated[
    Path, typer.Option(help="Images: DIR/<class>/<image>, or train/ and val/ of that form.")
]
PixelsOpt = Annotated[
    int,
    typer.Option(
        min=1,
        max=178_000_000,  # beyond it, Pillow refuses
        help="Width times height of the largest image that is decoded; others are left out.",
    ),
]
BatchOpt = Annotated[int, typer.Option(min=1, help="Images computed at once.")]
WorkersOpt = Annotated[int, typer.Option(min=0, help="Processes that read images; 0: this one.")]
SeedOpt = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
JsonOpt = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object and nothing else.", show_default="off"),
]
OverwriteOpt = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Also remove what was exported or timed of the earlier run in --out, and nothing "
        "else.",
        show_default="off",
    ),
]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What a MODEL argument leaves open: where its weights are, and how it is fed and read."""

    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights to load: safetensors, or a torch state dict.",
            show_default="MODEL's own, downloaded",
        ),
    ] = None
    input_size: Annotated[
        int | None,
        typer.Option(help="Side of the network's input, in pixels.", show_default="MODEL's own"),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            help="Mean per channel, values 0..1, e.g. 0.485,0.456,0.406.",
            show_default="MODEL's own",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(help="Deviation per channel, values 0..1.", show_default="MODEL's own"),
    ] = None
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="TSV with a column index and any number of alias columns.",
            show_default="MODEL's own, ImageNet's for 1,000 outputs, else numbers",
        ),
    ] = None

    def load(self, model: str) -> Model:
        """The network that a MODEL argument and these options ask for."""
        return load_model(
            model,
            weights=self.weights,
            input_size=self.input_size,
            mean=_numbers(self.mean, "--mean"),
            std=_numbers(self.std, "--std"),
            class_names=self.class_names,
        )


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"found {option} {text!r}; expected numbers with commas between, such as 0.5,0.5,0.5"
        ) from None


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where images and statistics of a mission come from."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="Images: DIR/<class>/<image>, or train/ and val/ of that form.",
            show_default="none, needed without --from",
        ),
    ] = None
    val: Annotated[
        Path | None,
        typer.Option(
            help="Images for the final figures only.",
            show_default="DATA/val beside DATA/train, else a held-out fifth of each class",
        ),
    ] = None
    search: Annotated[
        Path | None,
        typer.Option(help="Images for the search.", show_default="half of DATA's"),
    ] = None
    atlas: Annotated[
        Path | None,
        typer.Option(help="Statistics that `collect` wrote.", show_default="collect them"),
    ] = None

    max_pixels: PixelsOpt = MAX_PIXELS

    def split(self, classes: ClassTable, mission: Mission, seed: int) -> Images:
        """Statistics, search and val images from these folders; InputError without ``data``."""
        if self.data is None:
            raise InputError("there is no folder of images; pass one with --data")
        val, search = self.val, self.search

        def opened(folder: Path) -> Folders:
            return open_images(folder, classes, mission.indices, max_pixels=self.max_pixels)

        return split_images(
            opened(self.data),
            val=kept_apart(opened(val)) if val else None,
            search=opened(search).train if search else None,
            atlas=open_atlas(self.atlas) if self.atlas else None,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and in what portions to compute."""

    batch_size: BatchOpt = 32
    workers: WorkersOpt = 0
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto
