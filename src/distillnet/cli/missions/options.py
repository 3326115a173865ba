"""Options of the commands that read an atlas."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import Mission, parse_mission, read_lines
from distillnet.cli.checks import check_file
from distillnet.cli.groups import MISSION, NETWORK
from distillnet.cli.options import ComputeOptions
from distillnet.cli.search_options import Aim, TimingsOpt, times_of
from distillnet.errors import InputError
from distillnet.files.results import ATLAS
from distillnet.job.options import Options
from distillnet.search.budget import Budget

if TYPE_CHECKING:
    from distillnet.missions.files import MissionAtlas
    from distillnet.models import Model

__all__ = [
    "AtlasArg",
    "AtlasOptions",
    "ClassesOpt",
    "check_atlas_folder",
    "mission_of",
]

_SHOWN = 12  # classes of an atlas, in an error

AtlasArg = Annotated[
    Path, typer.Argument(metavar="ATLAS", help="An atlas, written by `collect` or `merge`.")
]
ClassesOpt = Annotated[
    str,
    typer.Option(
        metavar="A,B,C",
        help="The classes to keep, of those in ATLAS, as `distill` takes them.",
        rich_help_panel=MISSION,
    ),
]


@dataclass(frozen=True, kw_only=True)
class AtlasOptions:
    """What an atlas leaves open: where its network is, and what is to be made small."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The network that ATLAS is of; needed where it is FILE.py:CALLABLE, which runs "
            "only if you name it.",
            show_default="what ATLAS names",
            rich_help_panel=NETWORK,
        ),
    ] = None
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The network's weights.",
            show_default="where they were, relative to ATLAS; otherwise MODEL's own, downloaded",
            rich_help_panel=NETWORK,
        ),
    ] = None
    optimise: Annotated[
        Aim,
        typer.Option(
            help="What to minimise: the time that the network takes, or its multiply-adds.",
            rich_help_panel=MISSION,
        ),
    ] = Aim.time
    timings: TimingsOpt = None

    def check(self) -> None:
        """Raise InputError where a file is not there."""
        check_file(self.weights, "--weights", "a safetensors file or a PyTorch state dict")

    def job(self, budget: Budget, compute: ComputeOptions) -> Options:
        """As the library takes them."""
        return Options(
            budget=budget,
            keep_input_size=True,
            optimise=self.optimise.value,
            times=times_of(self.optimise, self.timings),
            device=compute.device.value,
            batch_size=compute.batch_size,
            workers=compute.workers,
            max_unreadable_percent=compute.max_unreadable,
        )

    def load(self, atlas: "MissionAtlas") -> "Model":
        """The network that an atlas is of."""
        from distillnet.missions.network import model_of

        return model_of(atlas, self.model, self.weights)


def check_atlas_folder(path: Path) -> None:
    """Raise InputError unless there is an atlas."""
    if not (path / ATLAS.marker).is_file():
        found = f"has no {ATLAS.marker}" if path.exists() else "does not exist"
        raise InputError(
            f"{path} is not an atlas ({found}); expected a folder that `distillnet collect` wrote"
        )


def mission_of(classes: str, atlas: "MissionAtlas", *, least: int = 2) -> Mission:
    """The classes that an option names, so many at least: a list, or @FILE.

    Raises:
        InputError: an atlas knows the names of its own classes alone, and there is no such name.
    """
    asked: str | list[str] = classes
    if classes.startswith("@"):
        lines = read_lines(Path(classes[1:]), "the classes")
        asked = [line.strip() for line in lines if line.strip()]
    try:
        return parse_mission(asked, atlas.classes, least=least)
    except InputError as error:
        names = [atlas.classes.names[index] for index in sorted(atlas.samples)]
        shown = ", ".join(names[:_SHOWN]) + (", and others" if len(names) > _SHOWN else "")
        raise InputError(
            f"{error}\n{atlas.directory} is of {len(names)} classes: {shown}"
        ) from None
