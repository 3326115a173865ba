"""The commands that measure what the papers report, and set it beside their own rows."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.checks import check_apart, check_folder
from distillnet.cli.commands.baselining import baselines_command
from distillnet.cli.commands.composing import composition_command
from distillnet.cli.groups import BUDGET, IMAGES, NETWORK, OUTPUT, SEARCH, SELDOM, GroupedCommand
from distillnet.cli.options import JsonOpt, Method, SeedOpt
from distillnet.cli.output import print_json, progress
from distillnet.cli.paper_tables import print_tables, tell_line
from distillnet.cli.search_options import Partial
from distillnet.errors import InputError
from distillnet.search.readings import READINGS, reading_of

__all__ = ["reproduce"]

reproduce = typer.Typer(no_args_is_help=True, help="Measure what the papers report.")


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


def _measure_table(
    table: TableName,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder with imagenette/ and weights/ (table1, table2, readings), MNIST's files "
            "and cifar10/ (table3), or MNIST's files (table4).",
            rich_help_panel=IMAGES,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images of ImageNet's classes, a folder for each, perhaps in train/ and val/.",
            show_default="imagenette in --data",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where rows are kept as they are measured; the same command continues there.",
            show_default="reproduced/TABLE",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How to search.", rich_help_panel=SEARCH)] = _BEST,
    max_loss: Annotated[
        float,
        typer.Option(
            min=0, metavar="POINTS", help="Accuracy that may be lost.", rich_help_panel=BUDGET
        ),
    ] = 1.0,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Sets of classes for each row: random ones, or in table1 the most related ones.",
            show_default="5 for table2, else 1",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help='The related classes, say ambulance,"fire engine","police van".',
            show_default="those of the images whose weights in the last layer are most alike",
            rich_help_panel=SEARCH,
        ),
    ] = None,
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
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Classes of a set: 5, 10 or 15; may be given several times.",
            show_default="5; in table2 all that there are images for",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    network: Annotated[
        list[NetworkName] | None,
        typer.Option(
            metavar="NAME",
            help="Whose rows to measure: in table3 mnist or cifar, else googlenet or squeezenet, "
            "beside the paper's of GoogLeNet. May be given several times.",
            show_default="both in table3, else googlenet",
            rich_help_panel=NETWORK,
        ),
    ] = None,
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
    ] = None,
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
    ] = None,
    param_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="WEIGHT",
            help="How much removing parameters counts beside removing MACs (best).",
            show_default="3 for table3, which compares parameters, else 0.1",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    partial: Annotated[
        Partial,
        typer.Option(
            help="What paper removes besides whole channels, see `distill`.",
            rich_help_panel=SELDOM,
        ),
    ] = _NEURONS,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes of training where TensorFlow's networks are not in --out yet.",
            show_default="as many as their recipes have",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    seed: SeedOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Measure a table of the paper and print it beside the paper's own rows."""
    check_folder(data, "--data", "a folder with the images and weights that the table needs")
    if images is not None:
        check_folder(images, "--images", "a folder with images of ImageNet's classes")
    folder = out or Path("reproduced") / table.value
    check_apart(folder, [data, images])
    readings = _readings(table, method, reading)
    networks = _networks(table, network)
    from distillnet.reproduce import Asked, reproduce_table

    asks = Asked(
        table.value, method.value, max_loss,
        networks=networks, readings=readings, seed=seed, per_class=per_class,
        param_weight=(3.0 if table is TableName.table3 else 0.1)
        if param_weight is None else param_weight,
        partial=partial.value, repeat=repeat or (5 if table is TableName.table2 else 1),
        classes=tuple(name.strip() for name in (classes or "").split(",") if name.strip()),
        images=(images or Path("imagenette")).resolve().name,
        **({"removed": tuple(removed)} if removed else {}),
        **({} if not size and table is TableName.table2 else {"sizes": tuple(size or (5,))}),
    )  # fmt: skip
    with progress() as on_progress:
        lines = reproduce_table(
            asks, data, folder, images=images, epochs=epochs, on_progress=on_progress,
            on_line=tell_line,
        )  # fmt: skip
    values = {
        "table": table.value,
        "method": method.value,
        "max_loss_pp": max_loss,
        "per_class": per_class,
        "rows": [asdict(line) for line in lines],
        "out": str(folder),
    }
    if as_json:
        print_json(values)
    else:
        print_tables(values)


def _networks(table: TableName, network: list[NetworkName] | None) -> tuple[str, ...] | None:
    """The networks that were asked for, checked against those of the table."""
    known = _OF_TENSORFLOW if table in _TENSORFLOW else _OF_IMAGENET
    if strange := [name for name in network or () if name not in known]:
        raise InputError(f"found --network {strange[0]}; expected {' or '.join(known)}")
    return tuple(name.value for name in network) if network else None


def _readings(table: TableName, method: Method, reading: list[str] | None) -> tuple[str, ...]:
    """The readings that were asked for, checked against the table and the method."""
    for name in reading or ():
        reading_of(name)
    if method.value != "paper" and (reading or table is TableName.readings):
        raise InputError(
            f"found --method {method.value}; readings are of the paper's search alone, so pass "
            "--method paper"
        )
    if table is TableName.readings:
        return tuple(reading or READINGS)
    if len(reading or ()) > 1:
        raise InputError("found several readings; only `reproduce readings` takes more than one")
    if table is TableName.table3 and method.value == "paper":
        return tuple(reading or ("price-params",))
    return tuple(reading or ("price",))


def _command(table: TableName) -> Callable[..., None]:
    """The command of one table, with the options that all have."""

    @functools.wraps(_measure_table)
    def command(**options: Any) -> None:
        _measure_table(table, **options)

    _, *others = inspect.signature(_measure_table).parameters.values()
    has = [option for option in others if table in _ONLY.get(option.name, (table,))]
    command.__signature__ = inspect.Signature(has)  # type: ignore[attr-defined]
    hints = _measure_table.__annotations__
    command.__annotations__ = {option.name: hints[option.name] for option in has}
    return command


for _table, _what in (
    (TableName.table1, "GoogLeNet for related classes."),
    (TableName.table2, "GoogLeNet for random sets of classes."),
    (TableName.table3, "TensorFlow's networks, 1 to 8 classes removed."),
    (TableName.table4, "Time where neurons are skipped."),
    (TableName.readings, "The paper's search, read in several ways."),
):
    reproduce.command(_table.value, short_help=_what, cls=GroupedCommand)(_command(_table))
reproduce.command("composition", short_help="Prune, distill, quantise.", cls=GroupedCommand)(
    composition_command
)
reproduce.command("baselines", short_help="Two naive ways.", cls=GroupedCommand)(baselines_command)
