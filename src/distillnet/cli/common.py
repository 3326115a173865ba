"""What several commands do alike."""

from pathlib import Path
from typing import TYPE_CHECKING

from distillnet.cli.output import print_json, print_line, print_result, warn, warn_unreadable

if TYPE_CHECKING:
    from distillnet.images import Folders, ImageSet
    from distillnet.job.distillation import Distillation

__all__ = ["kept_apart", "print_run", "run_folder"]


def kept_apart(folders: "Folders") -> "ImageSet":
    """The images to report on: those of val/ or test/ where there is one, else all."""
    return folders.val or folders.train


def print_run(done: "Distillation", out: Path, as_json: bool) -> None:
    """Warnings, then the figures of a run, as a table or as JSON."""
    from distillnet.job.results import result_json

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


def run_folder(run: Path) -> Path:
    """The folder of a run; one that is packed is unpacked for as long as this process lives."""
    if run.is_dir():
        return run
    from distillnet.deploy.packing import unpacked_run

    return unpacked_run(run)
