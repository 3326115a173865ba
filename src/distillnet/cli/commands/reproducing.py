"""The commands that measure what the papers report, and set it beside their own rows."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import typer

from distillnet.cli.commands.baselining import baselines_command
from distillnet.cli.commands.composing import composition_command
from distillnet.cli.commands.reproducing_options import TableName, TableOptions
from distillnet.cli.groups import GroupedCommand, grouped
from distillnet.cli.options import JsonOpt
from distillnet.cli.output import print_json, progress
from distillnet.cli.paper_tables import print_tables, tell_line

__all__ = ["reproduce"]

reproduce = typer.Typer(no_args_is_help=True, help="Measure what the papers report.")


def _measure_table(table: TableName, options: TableOptions, as_json: bool) -> None:
    folder = options.folder(table)
    readings, networks = options.readings(table), options.networks(table)
    sizes = options.sizes(table)
    from distillnet.reproduce import Asked, reproduce_table

    asked = Asked(
        table.value, options.method.value, options.max_loss,
        networks=networks, readings=readings, seed=options.seed, per_class=options.per_class,
        param_weight=options.weight_of_params(table),
        partial=options.partial.value, repeat=options.repeats(table),
        classes=options.names(),
        images=(options.images or Path("imagenette")).resolve().name,
        **({"removed": tuple(options.removed)} if options.removed else {}),
        **({"sizes": sizes} if sizes else {}),
    )  # fmt: skip
    with progress() as on_progress:
        lines = reproduce_table(
            asked, options.data, folder, images=options.images, epochs=options.epochs,
            on_progress=on_progress, on_line=tell_line,
        )  # fmt: skip
    values = {
        "table": table.value,
        "method": options.method.value,
        "max_loss_pp": options.max_loss,
        "per_class": options.per_class,
        "rows": [asdict(line) for line in lines],
        "out": str(folder),
    }
    if as_json:
        print_json(values)
    else:
        print_tables(values)


def _command(table: TableName) -> Callable[..., None]:
    """The command of one table, with the options that it has."""

    def command(options: TableOptions, as_json: JsonOpt = False) -> None:
        """Measure a table of the paper and print it beside the paper's own rows."""
        _measure_table(table, options, as_json)

    return grouped(command, without=TableOptions.lacking(table))


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
