"""The options of ``collect``: of which classes, from which images, and how much is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import ClassTable
from distillnet.cli.checks import asked_mission, check_apart, check_folder
from distillnet.cli.groups import IMAGES, OUTPUT, SELDOM
from distillnet.cli.missions.noise import DeltaOpt, NoiseOpt, check_noise
from distillnet.cli.options import DataOpt, PixelsOpt
from distillnet.files import check_writable
from distillnet.files.results import ATLAS
from distillnet.images.left_out import MAX_PIXELS

if TYPE_CHECKING:
    from distillnet.images import Folders

__all__ = ["CollectOptions"]


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """What an atlas is made of, and what it keeps of that."""

    data: DataOpt
    out: Annotated[
        Path, typer.Option(metavar="ATLAS", help="The folder to write.", rich_help_panel=OUTPUT)
    ]
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The classes to measure, as `distill` takes them; all takes every folder.",
            show_default="all that have images",
            rich_help_panel=IMAGES,
        ),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Positions in images to keep for each class, as every layer sees them, for "
            "`retarget` to fit weights on.",
            show_default="2000",
            rich_help_panel=SELDOM,
        ),
    ] = None
    min_images: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Leave out classes with fewer images; their statistics would reveal single ones.",
            rich_help_panel=IMAGES,
        ),
    ] = 1
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from where an interrupted pass into --out was; give the same options.",
            show_default="off",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    noise: NoiseOpt = None
    delta: DeltaOpt = None
    max_pixels: PixelsOpt = MAX_PIXELS

    def check(self) -> None:
        """Raise InputError where options do not go together, or folders do not serve."""
        check_noise(self.noise, self.delta, self.samples, resume=self.resume)
        check_writable(self.out, ATLAS)
        check_folder(self.data, "--data", "a folder with one folder of images per class in it")
        check_apart(self.out, [self.data])

    def find(self, table: ClassTable) -> tuple[ClassTable, "Folders"]:
        """The classes by the names that were asked for, and their images."""
        from distillnet.images import open_images

        if self.classes is None or self.classes == "all":
            return table, open_images(self.data, table, max_pixels=self.max_pixels)
        mission = asked_mission(self.classes, self.data, table)
        folders = open_images(self.data, table, mission, max_pixels=self.max_pixels)
        return mission.named(table), folders
