"""The options of `reproduce TABLE`: what to measure, and on which images."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.checks import check_apart, check_folder
from distillnet.cli.groups import BUDGET, IMAGES, NETWORK, OUTPUT, SEARCH, SELDOM
from distillnet.cli.options import Method, SeedOpt
from distillnet.cli.search_options import Partial
from distillnet.errors import InputError
from distillnet.search.readings import READINGS, reading_of

__all__ = ["TableName", "TableOptions"]

_BEST = Method("best")
_NEURONS = Partial("neurons")


class NetworkName(StrEnum):
    """TensorFlow's two, and those for ImageNet's classes."""

    mnist = "mnist"
    cifar = "cifar"
    googlenet = "googlenet"
    squeezenet = "squeezenet"


class TableName(StrEnum):
    """``reproduce.TABLES``."""

    table1 = "table1"
    table2 = "table2"
    table3 = "table3"
    table4 = "table4"
    readings = "readings"


_IMAGENET = (TableName.table1, TableName.table2, TableName.readings)
_TENSORFLOW = (TableName.table3, TableName.table4)
# Options that not all tables have.
_ONLY: Mapping[str, tuple[TableName, ...]] = {
    "images": _IMAGENET,
    "repeat": _IMAGENET,
    "classes": (TableName.table1,),
    "size": _IMAGENET,
    "network": (*_IMAGENET, TableName.table3),
    "removed": _TENSORFLOW,
    "epochs": _TENSORFLOW,
}
_OF_IMAGENET = (NetworkName.googlenet, NetworkName.squeezenet)
_OF_TENSORFLOW = (NetworkName.mnist, NetworkName.cifar)


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table of the paper is measured; some tables lack some of them, see ``lacking``."""

    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder with imagenette/ and weights/ (table1, table2, readings), MNIST's files "
            "and cifar10/ (table3), or MNIST's files (table4).",
            rich_help_panel=IMAGES,
        ),
    ]
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images of ImageNet's classes, a folder for each, perhaps in train/ and val/.",
            show_default="imagenette in --data",
            rich_help_panel=IMAGES,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where rows are kept as they are measured; the same command continues there.",
            show_default="reproduced/TABLE",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    method: Annotated[Method, typer.Option(help="How to search.", rich_help_panel=SEARCH)] = _BEST
    max_loss: Annotated[
        float,
        typer.Option(
            min=0, metavar="POINTS", help="Accuracy that may be lost.", rich_help_panel=BUDGET
        ),
    ] = 1.0
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Sets of classes for each row: random ones, or in table1 the most related ones.",
            show_default="5 for table2, else 1",
            rich_help_panel=SEARCH,
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help='The related classes, say ambulance,"fire engine","police van".',
            show_default="those of the images whose weights in the last layer are most alike",
            rich_help_panel=SEARCH,
        ),
    ] = None
    reading: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="How the paper's search is read (--method paper), see `distill --reading`; may be "
            "given several times (readings).",
            show_default="price; price-params for table3, which compares parameters; all for "
            "readings",
            rich_help_panel=SEARCH,
        ),
    ] = None
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Classes of a set: 5, 10 or 15; may be given several times.",
            show_default="5; in table2 all that there are images for",
            rich_help_panel=SEARCH,
        ),
    ] = None
    network: Annotated[
        list[NetworkName] | None,
        typer.Option(
            metavar="NAME",
            help="Whose rows to measure: in table3 mnist or cifar, else googlenet or squeezenet, "
            "beside the paper's of GoogLeNet. May be given several times.",
            show_default="both in table3, else googlenet",
            rich_help_panel=NETWORK,
        ),
    ] = None
    removed: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=8,
            metavar="K",
            help="How many of ten classes to remove; may be given several times.",
            show_default="1 to 8",
            rich_help_panel=SEARCH,
        ),
    ] = None
    per_class: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Images of each class to use, for a quicker search; the figures still use as many "
            "as ever.",
            show_default="all",
            rich_help_panel=IMAGES,
        ),
    ] = None
    param_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="WEIGHT",
            help="How much removing parameters counts beside removing MACs (--method best).",
            show_default="3 for table3, which compares parameters, else 0.1",
            rich_help_panel=SELDOM,
        ),
    ] = None
    partial: Annotated[
        Partial,
        typer.Option(
            help="What paper removes besides whole channels, see `distill`.",
            rich_help_panel=SELDOM,
        ),
    ] = _NEURONS
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes of training where TensorFlow's networks are not in --out yet.",
            show_default="as many as their recipes have",
            rich_help_panel=SELDOM,
        ),
    ] = None
    seed: SeedOpt = 0

    @staticmethod
    def lacking(table: TableName) -> frozenset[str]:
        """Options that a table does not have."""
        return frozenset(name for name, tables in _ONLY.items() if table not in tables)

    def folder(self, table: TableName) -> Path:
        """Where rows are kept, apart from the images, which have to be there."""
        what = "a folder with the images and weights that the table needs"
        check_folder(self.data, "--data", what)
        if self.images is not None:
            check_folder(self.images, "--images", "a folder with images of ImageNet's classes")
        folder = self.out or Path("reproduced") / table.value
        check_apart(folder, [self.data, self.images])
        return folder

    def names(self) -> tuple[str, ...]:
        """The related classes that were named."""
        return tuple(name.strip() for name in (self.classes or "").split(",") if name.strip())

    def sizes(self, table: TableName) -> tuple[int, ...] | None:
        """How many classes sets have; None for those that there are images for."""
        if not self.size and table is TableName.table2:
            return None
        return tuple(self.size or (5,))

    def repeats(self, table: TableName) -> int:
        """How many sets of classes a row has."""
        return self.repeat or (5 if table is TableName.table2 else 1)

    def weight_of_params(self, table: TableName) -> float:
        """How much parameters count: more where they are what is compared."""
        if self.param_weight is not None:
            return self.param_weight
        return 3.0 if table is TableName.table3 else 0.1

    def networks(self, table: TableName) -> tuple[str, ...] | None:
        """The networks that were asked for, checked against those of the table."""
        known = _OF_TENSORFLOW if table in _TENSORFLOW else _OF_IMAGENET
        if strange := [name for name in self.network or () if name not in known]:
            raise InputError(f"found --network {strange[0]}; expected {' or '.join(known)}")
        return tuple(name.value for name in self.network) if self.network else None

    def readings(self, table: TableName) -> tuple[str, ...]:
        """The readings that were asked for, checked against the table and the method."""
        asked, method = self.reading or [], self.method.value
        for name in asked:
            reading_of(name)
        if method != "paper" and (asked or table is TableName.readings):
            raise InputError(
                f"found --method {method}; readings are of the paper's search alone, so pass "
                "--method paper"
            )
        if table is TableName.readings:
            return tuple(asked or READINGS)
        if len(asked) > 1:
            raise InputError(
                "found several readings; only `reproduce readings` takes more than one"
            )
        if table is TableName.table3 and method == "paper":
            return tuple(asked or ("price-params",))
        return tuple(asked or ("price",))
