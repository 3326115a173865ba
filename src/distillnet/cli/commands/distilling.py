"""The command that does the main job: its options, and one call of ``distillnet.job.distill``."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.asked import asked_for
from distillnet.cli.checks import check_run, refuse_beside
from distillnet.cli.common import print_run
from distillnet.cli.groups import MISSION, OUTPUT, grouped
from distillnet.cli.missions.noise import warn_noise
from distillnet.cli.options import (
    ComputeOptions,
    ImageOptions,
    JsonOpt,
    NetworkOptions,
    OverwriteOpt,
)
from distillnet.cli.output import print_json, print_line, progress, warn
from distillnet.cli.process.neighbours import advice, busy_processors
from distillnet.cli.result_table import print_result
from distillnet.cli.resuming import ResumeOptions, saying_what_is_kept, tell_best
from distillnet.cli.search_options import BudgetOptions, SearchOptions, job_options
from distillnet.files import check_writable, new_folder
from distillnet.files.results import RUN
from distillnet.search.budget import Budget

__all__ = ["distill_command"]

_ModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (this runs the file) or "
        "FILE.pt2; leave it out with --from.",
        show_default="none",
    ),
]
_ClassesOpt = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="The classes to keep: names or indices separated by commas. OWN=NAME calls the "
        'network\'s class NAME by your own name OWN, as in "football=soccer ball"; @FILE reads '
        "one such item per line.",
        show_default="all folders in --data",
        rich_help_panel=MISSION,
    ),
]
_FromOpt = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Take a network for another budget from an earlier run, without a new search.",
        show_default="none",
        rich_help_panel=OUTPUT,
    ),
]


@grouped
def distill_command(
    context: typer.Context,
    *,
    model: _ModelArg = None,
    images: ImageOptions,
    classes: _ClassesOpt = None,
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="The folder to write.", rich_help_panel=MISSION)
    ],
    budget: BudgetOptions,
    network: NetworkOptions,
    search: SearchOptions,
    compute: ComputeOptions,
    from_run: _FromOpt = None,
    resuming: ResumeOptions,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Cut a network down to a few classes within an accuracy budget; the main job."""
    if from_run is not None:
        refuse_beside(context, "--from, which takes an existing network", _WITH_FROM)
        _take_from(from_run, budget.budget(), out, as_json, overwrite)
        return
    if model is None or images.data is None:
        given = {"MODEL": model, "--data": images.data}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise typer.BadParameter(
            f"{missing} missing; expected both MODEL and --data, or --from RUN to take another "
            "network from an earlier run"
        )
    options = job_options(budget, search, network, compute)
    check_writable(out, RUN, overwrite=overwrite)
    load = asked_for(model, network, images, classes, out)
    # All that can be wrong without a network was found by now.
    from distillnet.atlas import open_atlas
    from distillnet.job.distill import distill
    from distillnet.job.resuming import search_store
    from distillnet.job.runs import write_run
    from distillnet.missions.noise.notes import read_noise

    sources = asdict(images) | {"weights": network.weights, "class_names": network.class_names}
    del sources["max_pixels"]  # no place
    reads = [path for path in sources.values() if path] + [Path(model), Path(model.split(":")[0])]
    with (
        saying_what_is_kept(out, resuming),
        new_folder(out, RUN, reads, overwrite=overwrite) as folder,
        progress() as on_progress,
    ):
        loaded, mission, split = load(search.seed)
        _warn_of_neighbours(options.device)
        statistics = open_atlas(images.atlas) if images.atlas else None
        if images.atlas and (noise := read_noise(images.atlas)):
            warn_noise(images.atlas, noise, options.score)
        if statistics is None:
            (folder / "atlas").mkdir()
        done = distill(
            loaded,
            mission,
            split,
            folder / "atlas",
            options,
            atlas=statistics,
            store=search_store(
                out,
                loaded,
                mission,
                split,
                options,
                **asdict(resuming),
                on_best=tell_best,
                on_front=on_progress.on_front,
            ),
            on_progress=on_progress,
        )
        write_run(done, folder, sources)
    print_run(done, out, as_json)


def _warn_of_neighbours(device: str) -> None:
    """Say so where other programs will make a search slow."""
    import torch

    from distillnet.job.distill import pick_device

    if pick_device(device).type != "cpu":
        return
    if note := advice(busy_processors(), torch.get_num_threads(), os.cpu_count() or 1):
        warn(note)


_BUDGET = ("max_loss", "max_class_loss", "confidence", "target_macs", "target_params")
_WITH_FROM = ("from_run", "out", "overwrite", "as_json", *_BUDGET)


def _take_from(run: Path, budget: Budget, out: Path, as_json: bool, overwrite: bool) -> None:
    check_run(run)
    check_writable(out, RUN, overwrite=overwrite)
    from distillnet.job.front import take_from_front
    from distillnet.job.runs import open_run

    with new_folder(out, RUN, [run], overwrite=overwrite) as folder:
        result = take_from_front(open_run(run), budget, folder)
    if as_json:
        print_json(result)
    else:
        print_result(result)
        print_line(f"Written to {out}")
