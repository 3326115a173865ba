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
from distillnet.cli.groups import BUDGET, IMAGES, NETWORK, OUTPUT, SEARCH, SELDOM, GroupedCommand
from distillnet.cli.options import JsonOpt, Method, SeedOpt
from distillnet.cli.output import print_json, print_line, print_table, progress

__all__ = ["reproduce"]

reproduce = typer.Typer(no_args_is_help=True, help="Measure what the papers report.")


_BEST = Method("best")


class NetworkName(StrEnum):
    """TensorFlow's two."""

    mnist = "mnist"
    cifar = "cifar"


class TableName(StrEnum):
    """``reproduce.TABLES``."""

    table2 = "table2"
    table3 = "table3"
    table4 = "table4"


def _measure_table(
    table: TableName,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder with imagenette/ and weights/ (table2), MNIST's files and cifar10/ "
            "(table3), or MNIST's files (table4).",
            rich_help_panel=IMAGES,
        ),
    ],
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
        int,
        typer.Option(
            min=1, metavar="N", help="Random sets of classes (table2).", rich_help_panel=SEARCH
        ),
    ] = 5,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Classes of a set: 5, 10 or 15; may be given several times (table2).",
            show_default="all that there are images for",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    network: Annotated[
        list[NetworkName] | None,
        typer.Option(
            metavar="mnist|cifar",
            help="Whose rows to measure (table3).",
            show_default="both",
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
    folder = out or Path("reproduced") / table.value
    check_apart(folder, [data])
    from distillnet.reproduce import Asked, reproduce_table

    asked = Asked(table.value, method.value, max_loss, repeat=repeat, seed=seed)
    asked = replace(
        asked,
        removed=tuple(removed or asked.removed),
        networks=tuple(n.value for n in network or NetworkName),
        sizes=tuple(size or asked.sizes),
    )
    with progress() as on_progress:
        lines = reproduce_table(asked, data, folder, epochs=epochs, on_progress=on_progress)
    values = {"table": table.value, "method": method.value, "max_loss_pp": max_loss,
              "rows": [asdict(line) for line in lines], "out": str(folder)}  # fmt: skip
    if as_json:
        print_json(values)
    else:
        _print(values)


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
    rows = []
    for line in values["rows"]:
        spread = f" ± {line['ours_deviation']:.2f}" if line["sets"] > 1 else ""
        rows.append(
            [
                line["network"], str(line["row"]), f"{line['paper']:g}",
                f"{line['ours']:.2f}{spread}", "better" if line["better"] else "worse",
                f"{line['mac_ratio']:.2f}x", f"{line['loss_pp']:+.2f}", f"{line['seconds']:.0f}",
            ]
        )  # fmt: skip
    left = "classes" if values["table"] == "table2" else "classes removed"
    print_table(
        f"{values['table']}, --method {values['method']}: {values['rows'][0]['what']}",
        ["network", left, "paper", "here", "", "MAC ratio", "loss, pp", "seconds"],
        rows,
    )
    print_line(f"Kept in {values['out']}")


for _table, _what in (
    (TableName.table2, "GoogLeNet for random sets of classes."),
    (TableName.table3, "TensorFlow's networks, 1 to 8 classes removed."),
    (TableName.table4, "Time where neurons are skipped."),
):
    reproduce.command(_table.value, short_help=_what, cls=GroupedCommand)(_command(_table))
reproduce.command("baselines", short_help="Two naive ways.", cls=GroupedCommand)(baselines_command)
