"""The command that measures statistics: one pass over images, an atlas."""

from pathlib import Path
from typing import Annotated

import typer

from distillnet.classes import parse_mission
from distillnet.cli.groups import grouped
from distillnet.cli.options import (
    ComputeOptions,
    DataOpt,
    JsonOpt,
    ModelArg,
    NetworkOptions,
    PixelsOpt,
)
from distillnet.cli.output import print_json, print_table, progress, warn_unreadable
from distillnet.files import new_folder
from distillnet.files.results import ATLAS
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import MAX_PIXELS, open_images
from distillnet.job.distill import measure_statistics, pick_device
from distillnet.job.distillation import Options

__all__ = ["collect_command"]


@grouped
def collect_command(
    model: ModelArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option(help="The atlas folder to write.")],
    network: NetworkOptions,
    compute: ComputeOptions,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Only these classes, commas between.", show_default="all that have images"
        ),
    ] = None,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """One pass over the images: per-class statistics of every neuron, an atlas."""
    device = compute.device.value
    options = Options(batch_size=compute.batch_size, workers=compute.workers, device=device)
    reads = [data, network.weights, network.class_names]
    with new_folder(out, ATLAS, reads) as folder, progress() as on_progress:
        loaded = network.load(model)
        mission = parse_mission(classes, loaded.classes) if classes is not None else None
        indices = mission.indices if mission else None
        images = open_images(data, loaded.classes, indices, max_pixels=max_pixels).train
        graph = capture_model(loaded)
        atlas, unreadable = measure_statistics(
            graph.to(pick_device(device)),
            analyse(graph),
            loaded,
            images,
            folder,
            options,
            on_progress,
        )
    warn_unreadable(unreadable)
    counts = {loaded.classes.names[c]: n for c, n in atlas.counts.items()}
    if as_json:
        print_json({"out": str(out), "counts": counts, "unreadable": len(unreadable)})
    else:
        print_table(f"Atlas {out}", ["class", "images"], [[c, str(n)] for c, n in counts.items()])
