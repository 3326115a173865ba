"""The command that makes a mission of an atlas."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from distillnet.cli.output import progress, warn, warn_unreadable
from distillnet.cli.search_options import BudgetOptions
from distillnet.files import check_writable, new_folder
from distillnet.files.results import RUN

if TYPE_CHECKING:
    from distillnet.classes import Mission
    from distillnet.images import Folders
    from distillnet.job.distillation import Distillation
    from distillnet.missions.files import MissionAtlas
    from distillnet.missions.unknown import Apart

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
            "train/ and val/ of that form, of which val/ is taken. With --with-unknown, those of "
            "train/, or else half of all, also set the rule's threshold.",
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
    options = network.job(budget.budget(), compute)
    from distillnet.images import open_images
    from distillnet.job.runs import write_run
    from distillnet.missions.files import open_mission_atlas
    from distillnet.missions.retargeting import retarget

    atlases = [open_mission_atlas(folder) for folder in (atlas, *others)]
    opened = atlases[0]
    mission = mission_of(classes, opened)
    folders = open_images(data, opened.classes, mission) if data else None
    apart = _apart(folders, mission, options.seed) if folders and with_unknown else None
    images = apart.report if apart else kept_apart(folders) if folders else None
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
            size = done.preprocessing.input_size
            of_size = next(a for a in atlases if a.preprocessing.input_size == size)
            told = _add_rule(of_size, done, apart, folder, on_progress)
    if with_unknown:
        warn(told)
    print_run(done, out, as_json)


def _apart(folders: "Folders", mission: "Mission", seed: int) -> "Apart":
    from distillnet.missions.unknown import images_apart

    return images_apart(folders, mission.indices, seed)


def _add_rule(
    atlas: "MissionAtlas",
    done: "Distillation",
    apart: "Apart | None",
    folder: Path,
    on_progress: Callable[[str, int, int], None],
) -> str:
    """Fit a rule for unknown images and write it; what there is to say of its threshold."""
    from distillnet.missions.unknown import RULE, fit_from_atlas, place_by_images, write_rule

    rule, found = fit_from_atlas(atlas, done)
    told = (
        "The threshold of the rule for unknown images is a guess from the atlas's samples: it may "
        "refuse far more or fewer than 5 % of the mission's images. About twenty of them, or "
        "better a few hundred, apart from those that are reported on, correct it: with --data, or "
        "later with `distillnet unknown RUN --threshold-only --data DIR`"
    )
    if apart and apart.placing.refs:
        rule, found, unreadable = place_by_images(rule, done, apart, on_progress)
        warn_unreadable(unreadable)
        told = (
            f"The rule for unknown images has its threshold where 5 % of {len(apart.placing):,} "
            f"images of --data ({apart.where}) are refused; of the {found.n_known:,} others, which "
            f"are reported on, {100 * found.point.false_reject:.1f} % are"
        )
    write_rule(rule, folder / "model.pt2", folder / RULE, found.figures)
    return told
