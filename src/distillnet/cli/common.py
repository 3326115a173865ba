"""What several commands do alike."""

from pathlib import Path

from distillnet.atlas import open_atlas
from distillnet.classes import ClassTable, Mission
from distillnet.cli.output import print_json, print_line, print_result, warn, warn_unreadable
from distillnet.errors import InputError
from distillnet.images import Folders, ImageSet, open_images
from distillnet.job.distillation import Distillation
from distillnet.job.partition import Images, split_images
from distillnet.job.runs import result_json
from distillnet.models import Model, load_model

__all__ = ["images_of", "kept_apart", "load", "print_run"]


def load(
    model: str,
    weights: Path | None,
    input_size: int | None,
    mean: str | None,
    std: str | None,
    class_names: Path | None,
) -> Model:
    """The model that a command's options ask for."""
    return load_model(
        model,
        weights=weights,
        input_size=input_size,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        class_names=class_names,
    )


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"found {option} {text!r}; expected numbers with commas between, such as 0.5,0.5,0.5"
        ) from None


def kept_apart(folders: Folders) -> ImageSet:
    """The images to report on: those of val/ or test/ where there is one, else all."""
    return folders.val or folders.train


def images_of(
    classes: ClassTable,
    mission: Mission,
    data: Path,
    *,
    val: Path | None,
    search: Path | None,
    atlas: Path | None,
    seed: int,
) -> Images:
    """Statistics, search and val images from the folders that ``distill`` takes."""
    return split_images(
        open_images(data, classes, mission.indices),
        val=kept_apart(open_images(val, classes, mission.indices)) if val else None,
        search=open_images(search, classes, mission.indices).train if search else None,
        atlas=open_atlas(atlas) if atlas else None,
        seed=seed,
    )


def print_run(done: Distillation, out: Path, as_json: bool) -> None:
    """Warnings, then the figures of a run, as a table or as JSON."""
    budget = done.options.budget
    warn_unreadable(done.unreadable)
    if not done.plan.keep and not done.found.met:
        warn(
            f"Nothing could be removed within {budget.max_loss_pp:g} points on the search images; "
            "this is the original network with its scores cut to the mission. More search images "
            "or a larger --max-loss may help."
        )
    for option, wanted, reached in (
        ("--target-macs", budget.target_macs, done.mac_ratio),
        ("--target-params", budget.target_params, done.param_ratio),
    ):
        if wanted is not None and reached < wanted:
            warn(f"{option} {wanted:g} cannot be reached by removing channels; got {reached:.2f}.")
    if as_json:
        print_json(result_json(done))
    else:
        print_result(result_json(done))
        print_line(f"Written to {out}")
