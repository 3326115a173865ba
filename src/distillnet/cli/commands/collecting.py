"""The command that measures statistics: one pass over images, an atlas."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import ClassTable
from distillnet.cli.checks import asked_mission, check_apart, check_folder
from distillnet.cli.groups import IMAGES, OUTPUT, SELDOM, grouped
from distillnet.cli.missions.noise import (
    DeltaOpt,
    NoiseOpt,
    check_noise,
    collect_with_noise,
)
from distillnet.cli.options import (
    ComputeOptions,
    DataOpt,
    JsonOpt,
    ModelArg,
    NetworkOptions,
    PixelsOpt,
)
from distillnet.cli.output import (
    print_json,
    print_table,
    progress,
    warn,
    warn_left_out,
    warn_unreadable,
)
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
            help="The classes to measure, as `distill` takes them; all takes every folder.",
            show_default="all that have images",
            rich_help_panel=IMAGES,
        ),
    ] = None,
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
    ] = None,
    min_images: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Leave out classes with fewer images; their statistics would reveal single ones.",
            rich_help_panel=IMAGES,
        ),
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from where an interrupted pass into --out was; give the same options.",
            show_default="off",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    noise: NoiseOpt = None,
    delta: DeltaOpt = None,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """Measure statistics of every neuron for each class, in one pass over the images.

    What it writes is an atlas, from which `retarget` makes any mission of these classes without
    images. Under `torchrun -m distillnet collect ...` several processes share the images.
    """
    check_noise(noise, delta, samples, resume=resume)
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
    if noise is not None:
        loaded = network.load(model)
        names, folders = known or _find(classes, data, loaded.classes, max_pixels)
        warn_left_out(folders.left_out)
        loaded = replace(loaded, classes=names)
        collect_with_noise(loaded, folders.train, out, reads, noise, delta, options, min_images,
                           as_json=as_json)  # fmt: skip
        return
    from distillnet.job.layout import file_of, relative_sources
    from distillnet.missions.collecting import SAMPLES, Pass, collect_model
    from distillnet.models.ranks import joined_ranks

    with joined_ranks() as ranks:
        how = Pass(samples or SAMPLES, min_images, resume, ranks)
        with (
            new_folder(out, ATLAS, reads) if ranks.first else nullcontext(out) as folder,
            progress() if ranks.first else nullcontext(_silent) as on_progress,
        ):
            loaded = network.load(model)
            names, folders = known or _find(classes, data, loaded.classes, max_pixels)
            places = {"model": file_of(model), "weights": network.weights, "data": data}
            done = collect_model(
                replace(loaded, classes=names),
                folders.train,
                folder,
                out,
                how,
                options,
                relative_sources(places, folder),
                on_progress,
            )
    warn_unreadable(done.unreadable)
    if done.atlas is None:
        return
    warn_left_out(folders.left_out)
    for name, n in done.left_out.items():
        warn(f"{name} has {n} images, fewer than --min-images {min_images}, and was left out")
    counts = {names.names[c]: n for c, n in done.atlas.statistics.counts.items()}
    if as_json:
        print_json({"out": str(out), "counts": counts, "unreadable": len(done.unreadable)})
    else:
        print_table(f"Atlas {out}", ["class", "images"], [[c, str(n)] for c, n in counts.items()])


def _silent(stage: str, done: int, of: int) -> None:
    pass


def _find(
    classes: str | None, data: Path, table: ClassTable, max_pixels: int
) -> tuple[ClassTable, "Folders"]:
    """The classes by the names that were asked for, and their images."""
    from distillnet.images import open_images

    if classes is None or classes == "all":
        return table, open_images(data, table, max_pixels=max_pixels)
    mission = asked_mission(classes, data, table)
    return mission.named(table), open_images(data, table, mission, max_pixels=max_pixels)
