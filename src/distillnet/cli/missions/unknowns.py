"""The command that fits a rule for unknown images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.cli.checks import check_folder, check_run
from distillnet.cli.groups import BUDGET, IMAGES, MISSION, grouped
from distillnet.cli.missions.run_options import STRANGERS, UnknownOpt
from distillnet.cli.options import JsonOpt, RunArg
from distillnet.cli.output import (
    percent,
    print_json,
    print_line,
    print_table,
    progress,
    warn,
    warn_unreadable,
)
from distillnet.cli.reading import ReadingOptions
from distillnet.files import check_writable, new_file

if TYPE_CHECKING:
    from distillnet.job.runs import Run
    from distillnet.missions.unknown import Rejection, Strangers

__all__ = ["unknown_command"]

_RULE = "unknown.json"  # missions.unknown.RULE, which imports torch


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """What a rule is fitted on, and how many errors it may make."""

    unknown: UnknownOpt = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images of the mission's classes: DIR/CLASS/IMAGE, or train/ of that form.",
            show_default="those that the run was made of",
            rich_help_panel=IMAGES,
        ),
    ] = None
    max_false_accept: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="PERCENT",
            help="How many of the other images may be taken for one of the classes.",
            show_default="as many as --max-false-reject leaves",
            rich_help_panel=BUDGET,
        ),
    ] = None
    max_false_reject: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="PERCENT",
            help="How many of the mission's images may be refused.",
            show_default="5, or with --max-false-accept as many as it takes",
            rich_help_panel=BUDGET,
        ),
    ] = None
    threshold_only: Annotated[
        bool,
        typer.Option(
            "--threshold-only",
            help="Keep the rule that RUN has, such as one that `retarget` fitted from an atlas, "
            "and set its threshold from the images.",
            show_default="off",
            rich_help_panel=MISSION,
        ),
    ] = False

    def check(self) -> None:
        """Raise InputError where a folder is not there."""
        check_folder(self.unknown, "--unknown", STRANGERS)
        check_folder(self.data, "--data", "a folder with one folder of images per class in it")

    def strangers(self, opened: "Run", max_pixels: int) -> "Strangers | None":
        """Images of other things; says what a rule is without any."""
        from distillnet.missions.unknown import open_strangers

        if self.unknown is not None:
            return open_strangers(
                self.unknown, opened.classes, opened.mission, max_pixels=max_pixels
            )
        if not self.threshold_only:
            warn(
                "There are no images of other things to fit on: the rule is a threshold on the "
                "largest score. Images of what else the camera will see, with --unknown, work far "
                "better."
            )
        return None


@grouped
def unknown_command(
    run: RunArg, asked: RuleOptions, reading: ReadingOptions, as_json: JsonOpt = False
) -> None:
    """Fit a rule by which a run refuses images of none of the mission's classes.

    It becomes RUN/unknown.json, for `evaluate --unknown` and `export --with-unknown`. Its figures
    come from images, and from kinds of other images, that it was not fitted on.
    """
    check_run(run)
    asked.check()
    check_writable(run / _RULE)
    from distillnet.job.runs import open_run
    from distillnet.missions.unknown import fit_run, fitting_images, read_rule, write_rule

    opened = open_run(run)
    kept = read_rule(run)[0] if asked.threshold_only else None
    images = fitting_images(opened, asked.data, max_pixels=reading.max_pixels)
    strangers = asked.strangers(opened, reading.max_pixels)
    with progress() as on_progress:
        known = reading.batches(images, opened.preprocessing, on_progress, "evaluate")
        others = None
        if strangers is not None:
            others = reading.batches(strangers.train, opened.preprocessing, on_progress, "unknown")
        rule, found = fit_run(
            opened,
            known,
            others,
            max_false_accept=_share(asked.max_false_accept),
            max_false_reject=_share(asked.max_false_reject),
            rule=kept,
        )
    warn_unreadable((*known.unreadable, *(others.unreadable if others else ())))
    with new_file(run / _RULE) as work:
        write_rule(rule, run / "model.pt2", work, found.figures, found.curve)
    values = {"out": str(run / _RULE), "temperature": rule.temperature, **found.figures}
    if as_json:
        print_json(values)
        return
    title = f"{run}: images of its classes and others"
    of = "that set its threshold" if asked.threshold_only else "it was not fitted on"
    print_table(title, ["", ""], _rows(found, strangers, of))
    print_line(f"Written to {run / _RULE}; `export --with-unknown` includes it")


def _rows(found: "Rejection", strangers: "Strangers | None", of: str) -> list[list[str]]:
    rows = [["Images of the mission", f"{found.n_known:,}"]]
    if strangers is not None and found.roc is not None:
        kinds = len(strangers.train.counts())
        rows += [
            ["Images of other things", f"{found.n_unknown:,} in {kinds} folders"],
            [f"Area under the ROC curve, of images {of}", f"{found.roc:.4f}"],
            ["False accepts at 5 % false rejects", percent(found.at_5)],
            ["False accepts at the threshold", percent(found.point.false_accept)],
        ]
    return [*rows, ["False rejects at the threshold", percent(found.point.false_reject)]]


def _share(percentage: float | None) -> float | None:
    return None if percentage is None else percentage / 100
