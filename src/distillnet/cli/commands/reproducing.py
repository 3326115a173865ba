"""The commands that measure what the papers report, and set it beside their own rows."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.checks import check_apart, check_folder
from distillnet.cli.commands.baselining import baselines_command
from distillnet.cli.commands.composing import composition_command
from distillnet.cli.groups import BUDGET, IMAGES, NETWORK, OUTPUT, SEARCH, SELDOM, GroupedCommand
from distillnet.cli.options import JsonOpt, Method, SeedOpt
from distillnet.cli.output import print_json, print_line, print_table, progress
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


_OF_TABLE = {
    "table3": (NetworkName.mnist, NetworkName.cifar),
    "readings": (NetworkName.googlenet, NetworkName.squeezenet),
}


class TableName(StrEnum):
    """``reproduce.TABLES``."""

    table1 = "table1"
    table2 = "table2"
    table3 = "table3"
    table4 = "table4"
    readings = "readings"


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
            help="Images of ImageNet's classes, a folder for each, perhaps in train/ and val/ "
            "(table1, table2, readings).",
            show_default="imagenette in --data",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where rows are kept as they are measured; the same command goes on there.",
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
            help="Sets of classes for each row: random ones (table2, readings), or the most "
            "related ones (table1).",
            show_default="5 for table2, else 1",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help='The related classes of table1, say ambulance,"fire engine","police van".',
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
            show_default="price; all of them for readings",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Classes of a set: 5, 10 or 15; may be given several times (table1, table2, "
            "readings).",
            show_default="5 for table1 and readings, all that there are images for in table2",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    network: Annotated[
        list[NetworkName] | None,
        typer.Option(
            metavar="NAME",
            help="Whose rows to measure: mnist, cifar (table3), googlenet, squeezenet (readings).",
            show_default="both of table3, googlenet of readings",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    removed: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=8,
            metavar="K",
            help="How many of ten classes to remove; may be given several times (table3, table4).",
            show_default="1 to 8",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    param_weight: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="WEIGHT",
            help="How much removing parameters counts beside removing MACs (best).",
            rich_help_panel=SELDOM,
        ),
    ] = 0.1,
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
    asked = _asked(table, method, network, reading)
    from distillnet.reproduce import Asked, reproduce_table

    asks = Asked(
        table.value, method.value, max_loss, seed=seed, param_weight=param_weight,
        partial=partial.value, repeat=repeat or (5 if table is TableName.table2 else 1),
        classes=tuple(name.strip() for name in (classes or "").split(",") if name.strip()),
        images=(images or Path("imagenette")).resolve().name, **asked,
    )  # fmt: skip
    few = table in (TableName.table1, TableName.readings)
    asks = replace(
        asks,
        removed=tuple(removed or asks.removed),
        sizes=tuple(size or ((5,) if few else asks.sizes)),
    )
    with progress() as on_progress:
        lines = reproduce_table(
            asks, data, folder, images=images, epochs=epochs, on_progress=on_progress
        )
    values = {"table": table.value, "method": method.value, "max_loss_pp": max_loss,
              "rows": [asdict(line) for line in lines], "out": str(folder)}  # fmt: skip
    if as_json:
        print_json(values)
    else:
        _print(values)


def _asked(
    table: TableName,
    method: Method,
    network: list[NetworkName] | None,
    reading: list[str] | None,
) -> dict[str, Any]:
    """Networks and readings, checked against what the table has."""
    known = _OF_TABLE.get(table.value, ())
    if strange := [name for name in network or () if name not in known]:
        expected = " or ".join(known) or "none for this table, which has one"
        raise InputError(f"found --network {strange[0]}; expected {expected}")
    readings = tuple(reading or ())
    for name in readings:
        reading_of(name)
    if table is TableName.readings:
        if method.value != "paper":
            raise InputError("found --method best; readings are of the paper's search alone")
        return {"networks": tuple(network or known[:1]), "readings": readings or tuple(READINGS)}
    if len(readings) > 1:
        raise InputError("found several readings; only `reproduce readings` takes more than one")
    return {"networks": tuple(network or known), "readings": readings or ("price",)}


def _command(table: TableName) -> Callable[..., None]:
    """The command of one table, with the options that all have."""

    @functools.wraps(_measure_table)
    def command(**options: Any) -> None:
        _measure_table(table, **options)

    _, *others = inspect.signature(_measure_table).parameters.values()
    command.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]
    hints = _measure_table.__annotations__
    command.__annotations__ = {name: hint for name, hint in hints.items() if name != "table"}
    return command


def _print(values: dict[str, Any]) -> None:
    rows, lines = [], values["rows"]
    readings = len({line["reading"] for line in lines}) > 1
    for line in lines:
        several = line["sets"] > 1
        spread = f" ± {line['ours_deviation']:.2f}" if several else ""
        loss = f"{line['loss_pp']:+.2f}"
        if several:
            loss += f" ± {line['loss_deviation_pp']:.2f}"
        else:
            low, high = line["loss_ci95_pp"]
            loss += f" ({low:+.2f} to {high:+.2f})"
        rows.append(
            [
                line["network"], line["reading"] if readings else str(line["row"]),
                f"{line['paper']:g}", "-" if line["ideal"] is None else f"{line['ideal']:g}",
                f"{line['ours']:.2f}{spread}", "better" if line["better"] else "worse",
                f"{line['mac_ratio']:.2f}x", f"{line['param_ratio']:.2f}x", loss,
                f"{line['worst_class_loss_pp']:+.2f}", f"{line['seconds']:.0f}",
            ]
        )  # fmt: skip
    left = "classes removed" if values["table"] in ("table3", "table4") else "classes"
    print_table(
        f"{values['table']}, --method {values['method']}: {lines[0]['what']}",
        ["network", "reading" if readings else left, "paper", "ideal", "here", "", "MACs", "params",
         "loss, pp", "worst class", "seconds"],
        rows,
    )  # fmt: skip
    for line in lines:
        if line["modules"]:
            _print_modules(line)
        if line["ms"]:
            before, after = line["ms"]
            print_line(f"{line['network']}, {line['row']} removed: {before:.3f} to {after:.3f} ms")
    print_line(f"Kept in {values['out']}")


def _print_modules(line: dict[str, Any]) -> None:
    from distillnet.reproduce.paper import MODULES

    found = line["modules"]
    kinds = {"paper": found["paper"], "here, neurons": found["ours"], "here, MACs": found["macs"]}
    print_table(
        f"{line['network']}, {line['row']} classes, {line['reading']}: each inception module, "
        "before over after",
        ["", *(f"I{name.upper()}" for name in MODULES)],
        [
            [name, *("-" if x is None else f"{x:.2f}" for x in values)]
            for name, values in kinds.items()
        ],
        1,
    )
    classes = ", ".join(line["classes"]) if line["classes"] else f"{line['sets']} sets"
    print_line(
        f"{classes}: {found['skipped_millions']:,.0f} million MACs of the modules are skipped; "
        f"the paper's: {found['paper_skipped_millions']:,}"
    )


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
