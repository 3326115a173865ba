"""The command that fits a rule for unknown images, and what `evaluate --unknown` does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_folder, check_run
from distillnet.cli.groups import BUDGET, IMAGES, MISSION, NETWORK
from distillnet.cli.options import (
    BatchOpt,
    JsonOpt,
    PixelsOpt,
    RunArg,
    UnreadableOpt,
    WorkersOpt,
)
from distillnet.cli.output import (
    print_json,
    print_line,
    print_table,
    progress,
    warn,
    warn_unreadable,
)
from distillnet.files import check_writable, new_file
from distillnet.images.left_out import MAX_PIXELS, MAX_UNREADABLE_PERCENT

if TYPE_CHECKING:
    from distillnet.images import BatchStream, ImageSet
    from distillnet.images.preprocessing import Preprocessing
    from distillnet.job.runs import Run
    from distillnet.missions.unknown import Rejection, Strangers

__all__ = [
    "STRANGERS",
    "Asked",
    "Reading",
    "UnknownOpt",
    "WeightsOpt",
    "measure_unknown",
    "print_unknown",
    "unknown_command",
    "with_weights",
]

STRANGERS = "a folder with folders of images of anything but the mission's classes"
_RULE = "unknown.json"  # missions.unknown.RULE, which imports torch

UnknownOpt = Annotated[
    Path | None,
    typer.Option(
        "--unknown",
        metavar="DIR",
        help="Images of what is none of the mission's classes, in folders of any names: DIR/empty "
        "scene/1.jpg. Folders of the mission's classes are left alone.",
        show_default="none",
        rich_help_panel=MISSION,
    ),
]
WeightsOpt = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The original's weights, if the run does not say where they are.",
        show_default="where they were when RUN was made",
        rich_help_panel=NETWORK,
    ),
]


def with_weights(opened: "Run", weights: Path | None) -> "Run":
    """A run whose original has its weights in this file."""
    if weights is None:
        return opened
    return replace(opened, sources={**opened.sources, "weights": str(weights)})


@dataclass(frozen=True)
class Reading:
    """How images are read."""

    batch_size: int
    workers: int
    max_unreadable: float
    max_pixels: int

    def batches(
        self,
        images: "ImageSet",
        how: "Preprocessing",
        on_progress: Callable[[str, int, int], None],
        stage: str,
    ) -> "BatchStream":
        """A stream of images that tells how far it is."""
        from distillnet.images import load_batches

        return load_batches(
            images,
            how,
            batch_size=self.batch_size,
            workers=self.workers,
            on_image=lambda n: on_progress(stage, n, len(images)),
            max_unreadable_percent=self.max_unreadable,
        )


@dataclass(frozen=True)
class Asked:
    """What `evaluate --unknown` was asked for beside the images."""

    runtime: str
    file: Path | None
    trust: bool
    compare_original: bool
    model: str | None
    weights: Path | None


def unknown_command(
    run: RunArg,
    unknown: UnknownOpt = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images of the mission's classes: DIR/CLASS/IMAGE, or train/ of that form.",
            show_default="those that the run was made of",
            rich_help_panel=IMAGES,
        ),
    ] = None,
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
    ] = None,
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
    ] = None,
    threshold_only: Annotated[
        bool,
        typer.Option(
            "--threshold-only",
            help="Keep the rule that RUN has, such as one that `retarget` fitted from an atlas, "
            "and set its threshold from the images.",
            show_default="off",
            rich_help_panel=MISSION,
        ),
    ] = False,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    max_unreadable: UnreadableOpt = MAX_UNREADABLE_PERCENT,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """Fit a rule by which a run refuses images of none of the mission's classes.

    It becomes RUN/unknown.json, for `evaluate --unknown` and `export --with-unknown`. Its figures
    come from images, and from kinds of other images, that it was not fitted on.
    """
    check_run(run)
    check_folder(unknown, "--unknown", STRANGERS)
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    check_writable(run / _RULE)
    from distillnet.job.runs import open_run
    from distillnet.missions.unknown import (
        fit_run,
        fitting_images,
        open_strangers,
        read_rule,
        write_rule,
    )

    opened, reading = open_run(run), Reading(batch_size, workers, max_unreadable, max_pixels)
    kept = read_rule(run)[0] if threshold_only else None
    images = fitting_images(opened, data, max_pixels=max_pixels)
    strangers = None
    if unknown is not None:
        strangers = open_strangers(unknown, opened.classes, opened.mission, max_pixels=max_pixels)
    elif not threshold_only:
        warn(
            "There are no images of other things to fit on: the rule is a threshold on the largest "
            "score. Images of what else the camera will see, with --unknown, work far better."
        )
    with progress() as on_progress:
        known = reading.batches(images, opened.preprocessing, on_progress, "evaluate")
        others = None
        if strangers is not None:
            others = reading.batches(strangers.train, opened.preprocessing, on_progress, "unknown")
        rule, found = fit_run(
            opened,
            known,
            others,
            max_false_accept=None if max_false_accept is None else max_false_accept / 100,
            max_false_reject=None if max_false_reject is None else max_false_reject / 100,
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
    of = "of images that set its threshold" if threshold_only else "of images it was not fitted on"
    print_table(title, ["", ""], _rows(found, strangers, of))
    print_line(f"Written to {run / _RULE}; `export --with-unknown` includes it")


def measure_unknown(
    opened: "Run", images: "ImageSet", unknown: Path, reading: Reading, asked: Asked
) -> dict[str, Any]:
    """What `evaluate --unknown` finds, as --json has it."""
    from distillnet.deploy.strangers import evaluate_with_unknown, open_scores, original_areas
    from distillnet.missions.unknown import open_strangers

    strangers = open_strangers(
        unknown, opened.classes, opened.mission, max_pixels=reading.max_pixels
    )
    with progress() as on_progress, TemporaryDirectory() as work:
        source = open_scores(opened, asked.runtime, asked.file, Path(work), asked.trust)
        known = reading.batches(images, opened.preprocessing, on_progress, "evaluate")
        others = reading.batches(strangers.report, opened.preprocessing, on_progress, "unknown")
        result, found = evaluate_with_unknown(opened, source, known, others, strangers.names)
        original = None
        if asked.compare_original:
            original = original_areas(
                with_weights(opened, asked.weights),
                asked.model,
                lambda how: (
                    reading.batches(images, how, on_progress, "evaluate"),
                    reading.batches(strangers.report, how, on_progress, "unknown"),
                ),
            )
    warn_unreadable((*known.unreadable, *others.unreadable))
    return {
        "accuracy": result.accuracy,
        "accuracy_open": None,
        "per_class": dict(result.per_class),
        "n": result.n,
        "runtime": asked.runtime,
        "unknown": {
            **found.figures,
            "false_accept_by_folder": dict(found.per_kind),
            "auroc_of_simple_scores": dict(found.simple),
            "auroc_of_original": original,
        },
    }


def print_unknown(run: Path, values: dict[str, Any], as_json: bool) -> None:
    """Print what ``measure_unknown`` found."""
    if as_json:
        print_json(values)
        return
    rows = [[name, _percent(share)] for name, share in values["per_class"].items()]
    rows.append(["all", _percent(values["accuracy"])])
    print_table(f"{run} on {values['n']} images", ["class", "accuracy"], rows)
    found = values["unknown"]
    rows = [
        ["Area under the ROC curve", f"{found['auroc']:.4f}"],
        ["False rejects of the mission's images", _percent(found["false_reject"])],
        ["False accepts of other images", _percent(found["false_accept"])],
        [
            "False accepts at 5 % false rejects",
            _percent(found["false_accepts_at_5_percent_false_rejects"]),
        ],
    ]
    rows += [[f"  of {name}", _percent(x)] for name, x in found["false_accept_by_folder"].items()]
    rows += [
        [f"Area of the {name} alone", f"{area:.4f}"]
        for name, area in found["auroc_of_simple_scores"].items()
    ]
    rows += [
        [f"Area of the original's {name}", f"{area:.4f}"]
        for name, area in (found["auroc_of_original"] or {}).items()
    ]
    print_table(f"{run} on {found['n_unknown']} images of other things", ["", ""], rows)


def _rows(found: "Rejection", strangers: "Strangers | None", of: str) -> list[list[str]]:
    rows = [["Images of the mission", f"{found.n_known:,}"]]
    if strangers is not None and found.roc is not None:
        kinds = len(strangers.train.counts())
        rows += [
            ["Images of other things", f"{found.n_unknown:,} in {kinds} folders"],
            [f"Area under the ROC curve, {of}", f"{found.roc:.4f}"],
            ["False accepts at 5 % false rejects", _percent(found.at_5)],
            ["False accepts at the threshold", _percent(found.point.false_accept)],
        ]
    return [*rows, ["False rejects at the threshold", _percent(found.point.false_reject)]]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
