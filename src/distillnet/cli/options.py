"""The options that several commands share, and the groups that they come in."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import ClassTable, Mission
from distillnet.cli.checks import asked_mission, check_file, check_folder
from distillnet.cli.groups import IMAGES, MISSION, NETWORK, OUTPUT, SELDOM
from distillnet.errors import InputError
from distillnet.images.left_out import MAX_PIXELS, MAX_UNREADABLE_PERCENT
from distillnet.job.options import METHODS, SCORE_NAMES, SURGEON
from distillnet.models.names import check_model, classes_before

if TYPE_CHECKING:
    from distillnet.images import Folders, ImageSet
    from distillnet.job.partition import Images
    from distillnet.models import Model

__all__ = [
    "MODEL_HELP",
    "BatchOpt",
    "ComputeOptions",
    "DataOpt",
    "Device",
    "Found",
    "ImageOptions",
    "JsonOpt",
    "Method",
    "ModelArg",
    "NetworkOptions",
    "OriginalOpt",
    "OverwriteOpt",
    "PackedRunArg",
    "PixelsOpt",
    "RunArg",
    "Runtime",
    "ScoreName",
    "SeedOpt",
    "UnreadableOpt",
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
ScoreName = StrEnum("ScoreName", {name: name for name in (SURGEON, *SCORE_NAMES)})  # type: ignore[misc]

_LAYOUT = "DIR/CLASS/IMAGE, or DIR/train and DIR/val with such folders in them"
_IMAGES = f"a folder of images: {_LAYOUT}"

MODEL_HELP = (
    "torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (this runs the file) or FILE.pt2."
)
ModelArg = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
OriginalOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The original network; needed where it is FILE.py:CALLABLE, which runs only if you "
        "name it.",
        show_default="what RUN names",
        rich_help_panel=NETWORK,
    ),
]
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, written by `distill`.")]
PackedRunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a packed run.")]
DataOpt = Annotated[
    Path,
    typer.Option(metavar="DIR", help=f"Folder of images: {_LAYOUT}.", rich_help_panel=IMAGES),
]
BatchOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Images per batch.", rich_help_panel=SELDOM)
]
WorkersOpt = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Extra processes that read images; with 0 the main process reads them.",
        rich_help_panel=SELDOM,
    ),
]
UnreadableOpt = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        metavar="PERCENT",
        help="How many of the images may be unreadable before the command stops; one is always "
        "allowed unless this is 0.",
        rich_help_panel=SELDOM,
    ),
]
SeedOpt = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**32 - 1,
        metavar="N",
        help="Seed of all random choices.",
        rich_help_panel=SELDOM,
    ),
]
PixelsOpt = Annotated[
    int,
    typer.Option(
        min=1,
        max=178_000_000,  # beyond it, Pillow refuses
        metavar="N",
        help="Width times height of the largest image that is decoded; others are left out.",
        rich_help_panel=SELDOM,
    ),
]
JsonOpt = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object instead of tables.",
        show_default="off",
        rich_help_panel=OUTPUT,
    ),
]
OverwriteOpt = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Also remove exports and timings of the earlier run in --out, and nothing else.",
        show_default="off",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What a MODEL argument leaves open: where its weights are, and how it is fed and read."""

    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights to load: a safetensors file or a PyTorch state dict.",
            show_default="MODEL's own, downloaded",
            rich_help_panel=NETWORK,
        ),
    ] = None
    class_names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names of the network's classes: a TSV or CSV table with a column `index`, or one "
            "name per line.",
            show_default="MODEL's own; ImageNet's for 1,000 outputs; otherwise numbers",
            rich_help_panel=NETWORK,
        ),
    ] = None
    input_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side length of the network's square input.",
            show_default="MODEL's own",
            rich_help_panel=NETWORK,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Mean that is subtracted from each channel, for pixel values from 0 to 1, such as "
            "0.485,0.456,0.406.",
            show_default="MODEL's own",
            rich_help_panel=NETWORK,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Standard deviation that each channel is divided by, for pixel values from 0 to "
            "1.",
            show_default="MODEL's own",
            rich_help_panel=NETWORK,
        ),
    ] = None

    def check(self, model: str) -> ClassTable | None:
        """Check MODEL and these options; the network's classes where they are known before it."""
        check_model(model)
        check_file(self.weights, "--weights", "a safetensors file or a PyTorch state dict")
        _numbers(self.mean, "--mean")
        _numbers(self.std, "--std")
        return classes_before(model, self.class_names)

    def load(self, model: str) -> "Model":
        """The network that a MODEL argument and these options ask for."""
        from distillnet.models import load_model

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
            f"found {option} {text!r}; expected numbers separated by commas, such as 0.5,0.5,0.5"
        ) from None


@dataclass(frozen=True)
class Found:
    """A mission and the images of it, found in their folders but not read."""

    mission: Mission
    data: "Folders"
    val: "ImageSet | None"
    search: "ImageSet | None"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where images and statistics of a mission come from."""

    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"Folder of images: {_LAYOUT}.",
            show_default="none; required unless a run is given",
            rich_help_panel=MISSION,
        ),
    ] = None
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that are used for the final figures only.",
            show_default="DIR/val beside DIR/train, otherwise a fifth of each class",
            rich_help_panel=IMAGES,
        ),
    ] = None
    search: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that the search judges networks by.",
            show_default="those in --data that are not used for the final figures; with --method "
            "paper half of them",
            rich_help_panel=IMAGES,
        ),
    ] = None
    atlas: Annotated[
        Path | None,
        typer.Option(
            metavar="ATLAS",
            help="Statistics that `collect` wrote for this network.",
            show_default="collected first",
            rich_help_panel=SELDOM,
        ),
    ] = None

    max_pixels: PixelsOpt = MAX_PIXELS

    def check(self) -> None:
        """Raise InputError where a folder is not there; what is in it needs the classes."""
        for option, path in (("--data", self.data), ("--val", self.val), ("--search", self.search)):
            check_folder(path, option, _IMAGES)
        check_folder(self.atlas, "--atlas", "a folder that `distillnet collect` wrote")

    def find(self, classes: str | Mission | None, table: ClassTable) -> Found:
        """The mission and its images; InputError where names or folders do not fit."""
        if self.data is None:
            raise InputError("there is no folder of images; pass one with --data")
        mission = classes
        if not isinstance(mission, Mission):
            mission = asked_mission(mission, self.data, table)
        val = self._open(self.val, table, mission) if self.val else None
        return Found(
            mission,
            self._open(self.data, table, mission),
            (val.val or val.train) if val else None,
            self._open(self.search, table, mission).train if self.search else None,
        )

    def _open(self, folder: Path, table: ClassTable, mission: Mission) -> "Folders":
        from distillnet.images import open_images

        return open_images(folder, table, mission, max_pixels=self.max_pixels)

    def split(self, found: Found, seed: int) -> "Images":
        """Statistics, search and val images of what was found."""
        from distillnet.atlas import open_atlas
        from distillnet.job.partition import split_images

        return split_images(
            found.data,
            val=found.val,
            search=found.search,
            atlas=open_atlas(self.atlas) if self.atlas else None,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and in what portions to compute."""

    device: Annotated[
        Device,
        typer.Option(
            help="Device to compute on; auto takes the GPU if there is one.", rich_help_panel=SELDOM
        ),
    ] = Device.auto
    batch_size: BatchOpt = 32
    workers: WorkersOpt = 0
    max_unreadable: UnreadableOpt = MAX_UNREADABLE_PERCENT
