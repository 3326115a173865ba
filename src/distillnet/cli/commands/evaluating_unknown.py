"""What ``evaluate --unknown`` does: how well a run refuses images of none of its classes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distillnet.cli.commands.evaluating_options import EvaluateOptions
from distillnet.cli.common import print_accuracies
from distillnet.cli.missions.run_options import with_weights
from distillnet.cli.output import percent, print_json, print_table, progress, warn_unreadable
from distillnet.cli.reading import ReadingOptions

if TYPE_CHECKING:
    from distillnet.images import ImageSet
    from distillnet.job.runs import Run

__all__ = ["measure_unknown", "print_unknown"]


def measure_unknown(
    opened: "Run", images: "ImageSet", asked: EvaluateOptions, reading: ReadingOptions
) -> dict[str, Any]:
    """What `evaluate --unknown` finds, as --json has it."""
    from distillnet.deploy.strangers import evaluate_with_unknown, open_scores, original_areas
    from distillnet.missions.unknown import open_strangers

    assert asked.unknown is not None
    strangers = open_strangers(
        asked.unknown, opened.classes, opened.mission, max_pixels=reading.max_pixels
    )
    runtime = asked.runtime.value
    with progress() as on_progress, TemporaryDirectory() as work:
        source = open_scores(opened, runtime, asked.file, Path(work), asked.trust)
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
        "runtime": runtime,
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
    print_accuracies(run, values)
    found = values["unknown"]
    rows = [
        ["Area under the ROC curve", f"{found['auroc']:.4f}"],
        ["False rejects of the mission's images", percent(found["false_reject"])],
        ["False accepts of other images", percent(found["false_accept"])],
        [
            "False accepts at 5 % false rejects",
            percent(found["false_accepts_at_5_percent_false_rejects"]),
        ],
    ]
    rows += [[f"  of {name}", percent(x)] for name, x in found["false_accept_by_folder"].items()]
    rows += [
        [f"Area of the {name} alone", f"{area:.4f}"]
        for name, area in found["auroc_of_simple_scores"].items()
    ]
    rows += [
        [f"Area of the original's {name}", f"{area:.4f}"]
        for name, area in (found["auroc_of_original"] or {}).items()
    ]
    print_table(f"{run} on {found['n_unknown']} images of other things", ["", ""], rows)
