"""The command that measures statistics: one pass over images, an atlas."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import ClassTable
from distillnet.cli.checks import asked_mission, check_apart, check_folder
from distillnet.cli.groups import IMAGES, OUTPUT, grouped
from distillnet.cli.options import (
    ComputeOptions,
    DataOpt,
    JsonOpt,
    ModelArg,
    NetworkOptions,
    PixelsOpt,
)
from distillnet.cli.output import print_json, print_table, progress, warn_left_out, warn_unreadable
from distillnet.files import check_writable, new_folder
from distillnet.files.results import ATLAS
from distillnet.images.left_out import MAX_PIXELS
from distillnet.job.options import Options

if TYPE_CHECKING:
    from distillnet.images import Folders

__all__ = ["collect_command"]


@grouped
def collect_command(
    model: ModelArg,
    data: DataOpt,
    out: Annotated[
        Path, typer.Option(metavar="ATLAS", help="The folder to write.", rich_help_panel=OUTPUT)
    ],
    network: NetworkOptions,
    compute: ComputeOptions,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The classes to measure, as `distill` takes them.",
            show_default="all that have images",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """Measure statistics of every neuron for each class, in one pass over the images."""
    device = compute.device.value
    options = Options(
        batch_size=compute.batch_size,
        workers=compute.workers,
        device=device,
        max_unreadable_percent=compute.max_unreadable,
    )
    reads = [data, network.weights, network.class_names]
    check_writable(out, ATLAS)
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    check_apart(out, [data])
    table = network.check(model)
    known = None if table is None else _find(classes, data, table, max_pixels)
    from distillnet.graph.capture import capture_model
    from distillnet.graph.channels import analyse
    from distillnet.job.distill import measure_statistics, pick_device

    with new_folder(out, ATLAS, reads) as folder, progress() as on_progress:
        loaded = network.load(model)
        names, folders = known or _find(classes, data, loaded.classes, max_pixels)
        graph = capture_model(loaded)
        atlas, unreadable = measure_statistics(
            graph.to(pick_device(device)),
            analyse(graph),
            loaded,
            folders.train,
            folder,
            options,
            on_progress,
        )
    warn_unreadable(unreadable)
    warn_left_out(folders.left_out)
    counts = {names.names[c]: n for c, n in atlas.counts.items()}
    if as_json:
        print_json({"out": str(out), "counts": counts, "unreadable": len(unreadable)})
    else:
        print_table(f"Atlas {out}", ["class", "images"], [[c, str(n)] for c, n in counts.items()])


def _find(
    classes: str | None, data: Path, table: ClassTable, max_pixels: int
) -> tuple[ClassTable, "Folders"]:
    """The classes by the names that were asked for, and their images."""
    from distillnet.images import open_images

    if classes is None:
        return table, open_images(data, table, max_pixels=max_pixels)
    mission = asked_mission(classes, data, table)
    return mission.named(table), open_images(data, table, mission, max_pixels=max_pixels)
