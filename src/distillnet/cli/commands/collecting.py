"""The command that measures statistics: one pass over images, an atlas."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distillnet.classes import ClassTable
from distillnet.cli.commands.collecting_options import CollectOptions
from distillnet.cli.groups import grouped
from distillnet.cli.missions.noise import collect_with_noise
from distillnet.cli.options import ComputeOptions, JsonOpt, ModelArg, NetworkOptions
from distillnet.cli.output import (
    print_json,
    print_table,
    progress,
    warn,
    warn_left_out,
    warn_unreadable,
)
from distillnet.files import new_folder
from distillnet.files.results import ATLAS
from distillnet.job.options import Options

if TYPE_CHECKING:
    from distillnet.images import Folders

__all__ = ["collect_command"]


@grouped
def collect_command(
    model: ModelArg,
    network: NetworkOptions,
    compute: ComputeOptions,
    asked: CollectOptions,
    as_json: JsonOpt = False,
) -> None:
    """Measure statistics of every neuron for each class, in one pass over the images.

    What it writes is an atlas, from which `retarget` makes any mission of these classes without
    images. Under `torchrun -m distillnet collect ...` several processes share the images.
    """
    asked.check()
    table = network.check(model)
    known = None if table is None else asked.find(table)  # torch is imported after
    options = Options(
        batch_size=compute.batch_size,
        workers=compute.workers,
        device=compute.device.value,
        max_unreadable_percent=compute.max_unreadable,
    )
    if asked.noise is None:
        _collect(model, network, asked, options, known, as_json)
        return
    loaded = network.load(model)
    names, folders = known or asked.find(loaded.classes)
    warn_left_out(folders.left_out)
    collect_with_noise(
        replace(loaded, classes=names), folders.train, asked.out, _reads(network, asked),
        asked.noise, asked.delta, options, asked.min_images, as_json=as_json,
    )  # fmt: skip


def _collect(
    model: str,
    network: NetworkOptions,
    asked: CollectOptions,
    options: Options,
    known: "tuple[ClassTable, Folders] | None",
    as_json: bool,
) -> None:
    """One pass over the images, which several processes may share."""
    from distillnet.job.layout import file_of, relative_sources
    from distillnet.missions.collecting import SAMPLES, Pass, collect_model
    from distillnet.models.ranks import joined_ranks

    out = asked.out
    with joined_ranks() as ranks:
        how = Pass(asked.samples or SAMPLES, asked.min_images, asked.resume, ranks)
        with (
            new_folder(out, ATLAS, _reads(network, asked))
            if ranks.first
            else nullcontext(out) as folder,
            progress() if ranks.first else nullcontext(_silent) as on_progress,
        ):
            loaded = network.load(model)
            names, folders = known or asked.find(loaded.classes)
            places = {"model": file_of(model), "weights": network.weights, "data": asked.data}
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
        warn(f"{name} has {n} images, fewer than --min-images {asked.min_images}, and was left out")
    counts = {names.names[c]: n for c, n in done.atlas.statistics.counts.items()}
    if as_json:
        print_json({"out": str(out), "counts": counts, "unreadable": len(done.unreadable)})
    else:
        print_table(f"Atlas {out}", ["class", "images"], [[c, str(n)] for c, n in counts.items()])


def _reads(network: NetworkOptions, asked: CollectOptions) -> list[Path | None]:
    """What is read, which must not lie in the folder that is written."""
    return [asked.data, network.weights, network.class_names]


def _silent(stage: str, done: int, of: int) -> None:
    pass
