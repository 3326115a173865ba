"""The command that makes a mission of an atlas."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import Mission
from distillnet.cli.checks import check_apart, check_folder
from distillnet.cli.common import kept_apart, print_run
from distillnet.cli.groups import IMAGES, MISSION, grouped
from distillnet.cli.missions.options import (
    AtlasArg,
    AtlasOptions,
    ClassesOpt,
    check_atlas_folder,
    mission_of,
)
from distillnet.cli.options import ComputeOptions, JsonOpt, OverwriteOpt
from distillnet.cli.output import progress, warn
from distillnet.cli.search_options import BudgetOptions
from distillnet.files import check_writable, new_folder
from distillnet.files.results import RUN

if TYPE_CHECKING:
    from distillnet.classes import ClassTable
    from distillnet.images import ImageSet

__all__ = ["retarget_command"]


@grouped
def retarget_command(
    atlas: AtlasArg,
    classes: ClassesOpt,
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="The folder to write.", rich_help_panel=MISSION)
    ],
    budget: BudgetOptions,
    network: AtlasOptions,
    compute: ComputeOptions,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images to measure the accuracy on, for the figures only: DIR/CLASS/IMAGE, or "
            "train/ and val/ of that form, of which val/ is taken.",
            show_default="none; accuracies are those of the samples in ATLAS",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    smaller: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="ATLAS",
            help="An atlas of the same images, collected with a smaller --input-size; may be given "
            "several times. The input size that serves the budget best is taken.",
            show_default="none; the input keeps its size",
            rich_help_panel=MISSION,
        ),
    ] = None,
    with_unknown: Annotated[
        bool,
        typer.Option(
            "--with-unknown",
            help="Also fit a rule that refuses images of none of the classes, on what ATLAS has of "
            "its other classes; it becomes RUN/unknown.json, as `unknown` writes it.",
            show_default="off",
            rich_help_panel=MISSION,
        ),
    ] = False,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Make a new mission from an atlas: in seconds, and without its images."""
    others = smaller or []
    for folder in (atlas, *others):
        check_atlas_folder(folder)
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    check_writable(out, RUN, overwrite=overwrite)
    check_apart(out, [data])
    network.check()
    options = network.job(
        budget.budget(), device=compute.device.value, batch_size=compute.batch_size
    )
    from distillnet.job.runs import write_run
    from distillnet.missions.files import open_mission_atlas
    from distillnet.missions.retargeting import retarget

    atlases = [open_mission_atlas(folder) for folder in (atlas, *others)]
    opened = atlases[0]
    mission = mission_of(classes, opened.classes)
    images = _images(data, opened.classes, mission) if data else None
    reads = [atlas, *others, network.weights]
    with new_folder(out, RUN, reads, overwrite=overwrite) as folder, progress() as on_progress:
        model = network.load(opened)
        done = retarget(
            opened,
            model,
            mission,
            replace(options, keep_input_size=not others),
            images=images,
            smaller=atlases[1:],
            strangers=sorted(set(opened.samples) - set(mission.indices)) if with_unknown else (),
            on_progress=on_progress,
        )
        weights = network.weights or opened.sources.get("weights")
        write_run(done, folder, {"atlas": atlas, "weights": weights, "data": None, "val": data})
        if with_unknown:
            from distillnet.missions.unknown import RULE, fit_from_atlas, write_rule

            size = done.preprocessing.input_size
            of_size = next(a for a in atlases if a.preprocessing.input_size == size)
            rule, told = fit_from_atlas(of_size, done)
            write_rule(rule, folder / "model.pt2", folder / RULE, told.figures)
            warn(
                "The threshold of the rule for unknown images is one of the atlas's samples, which "
                "vary more than images do; `unknown` puts it where some images say"
            )
    print_run(done, out, as_json)


def _images(data: Path, table: "ClassTable", mission: Mission) -> "ImageSet":
    from distillnet.images import open_images

    return kept_apart(open_images(data, table, mission))
