"""The command that puts distillation, pruning and quantisation in one order and in the other."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from distillnet.cli.asked import asked_for
from distillnet.cli.common import FiguresOpt, ImageClassesOpt, write_figures
from distillnet.cli.groups import BUDGET, SELDOM, grouped
from distillnet.cli.options import (
    ComputeOptions,
    ImageOptions,
    JsonOpt,
    ModelArg,
    NetworkOptions,
    SeedOpt,
)
from distillnet.cli.output import print_json, print_line, print_table, progress
from distillnet.files import check_writable
from distillnet.job.options import Options
from distillnet.search.budget import Budget

__all__ = ["composition_command"]


@grouped
def composition_command(
    *,
    model: ModelArg,
    images: ImageOptions,
    classes: ImageClassesOpt = None,
    target_macs: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="RATIO",
            help="Divide the number of MACs by this in each distillation.",
            rich_help_panel=BUDGET,
        ),
    ] = 3.0,
    prune: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.99,
            metavar="SHARE",
            help="Share of the weights that pruning removes, smallest magnitudes first.",
            rich_help_panel=BUDGET,
        ),
    ] = 0.5,
    out: FiguresOpt = None,
    keep_input_size: Annotated[
        bool,
        typer.Option(
            "--keep-input-size",
            help="Never shrink the input image.",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False,
    network: NetworkOptions,
    compute: ComputeOptions,
    seed: SeedOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Distill a pruned network and prune a distilled one, quantise both, and compare.

    Pruning is torch.nn.utils.prune, alone or with the weights that stay refitted in closed form;
    quantising is to 8 bits, and bytes are those of an entropy-coded file.
    """
    if out is not None:
        check_writable(out)
    load = asked_for(model, network, images, classes, out)
    options = Options(
        budget=Budget(target_macs=target_macs),
        keep_input_size=keep_input_size or network.input_size is not None,
        optimise="macs",
        seed=seed,
        batch_size=compute.batch_size,
        workers=compute.workers,
        device=compute.device.value,
        max_unreadable_percent=compute.max_unreadable,
    )
    from distillnet.reproduce.composition import compose

    with progress() as on_progress:
        loaded, mission, split = load(seed)
        rows = compose(loaded, mission, split, options, share=prune, on_progress=on_progress)
    values = {
        "model": model, "classes": list(mission.names), "n_val": len(split.val),
        "target_macs": target_macs, "prune": prune, "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    write_figures(values, out)
    if as_json:
        print_json(values)
    else:
        _print(values)


def _print(values: dict[str, Any]) -> None:
    most = max(row["macs"] for row in values["rows"])
    print_table(
        f"{values['model']}, {len(values['classes'])} classes, {values['n_val']} images held out, "
        f"{values['prune']:g} of the weights pruned",
        ["steps", "MACs (M)", "fewer", "weights left", "accuracy", "in 8 bits", "bytes", "seconds"],
        [
            [
                ", ".join((*row["route"], "quantise")),
                f"{row['macs'] / 1e6:,.1f}",
                f"{most / row['macs']:.2f} x",
                f"{100 * row['kept']:.1f} %",
                f"{100 * row['float_accuracy']:.1f} %",
                f"{100 * row['accuracy']:.1f} %",
                f"{row['bytes']:,}",
                f"{row['seconds']:,.1f}",
            ]
            for row in values["rows"]
        ],
        1,
    )
    print_line("Bytes: of an entropy-coded file of the weights in 8 bits, which unpacks exactly.")
