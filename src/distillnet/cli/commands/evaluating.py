"""The command that measures a run's accuracy, in each runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillnet.cli.checks import check_run
from distillnet.cli.commands.evaluating_options import EvaluateOptions
from distillnet.cli.commands.evaluating_unknown import measure_unknown, print_unknown
from distillnet.cli.common import kept_apart, print_accuracies, run_folder
from distillnet.cli.groups import grouped
from distillnet.cli.options import JsonOpt, PackedRunArg, Runtime
from distillnet.cli.output import print_json, progress, warn, warn_left_out, warn_unreadable
from distillnet.cli.reading import ReadingOptions

if TYPE_CHECKING:
    from distillnet.images import ImageSet
    from distillnet.job.runs import Run

__all__ = ["evaluate_command"]


@grouped
def evaluate_command(
    run: PackedRunArg, asked: EvaluateOptions, reading: ReadingOptions, as_json: JsonOpt = False
) -> None:
    """Measure a distilled network's accuracy, overall and per class.

    On the images that were held out for its own figures, or on those of DIR. If it was made from
    some of these, that is said first. With --unknown, also how often the rule `unknown` fitted
    takes other images for a class, and refuses those of the mission.
    """
    asked.check()
    check_run(run, packed=True)
    from distillnet.deploy import evaluate_c, evaluate_onnx, open_onnx
    from distillnet.job.evaluating import evaluate_run
    from distillnet.job.runs import open_run

    folder = run_folder(run)
    opened = open_run(folder)
    images, seen = _images(opened, asked.data, reading.max_pixels)
    if asked.unknown is not None:
        print_unknown(
            run, measure_unknown(opened, images, asked, reading) | {"n_seen": seen}, as_json
        )
        return
    with progress() as on_progress:
        stream = reading.batches(images, opened.preprocessing, on_progress, "evaluate")
        if asked.runtime is Runtime.onnx:
            result = evaluate_onnx(opened, open_onnx(asked.file or folder / "model.onnx"), stream)
        elif asked.runtime is Runtime.c:
            result = evaluate_c(opened, asked.file or folder / "c", stream, trust=asked.trust)
        else:
            result = evaluate_run(opened, stream)
    warn_unreadable(stream.unreadable)
    values: dict[str, Any] = {
        "accuracy": result.accuracy,
        "accuracy_open": None,
        "per_class": dict(result.per_class),
        "n": result.n,
        "n_seen": seen,
        "runtime": asked.runtime.value,
    }
    if as_json:
        print_json(values)
    else:
        print_accuracies(run, values)


def _images(opened: "Run", data: Path | None, max_pixels: int) -> tuple["ImageSet", int | None]:
    """Those to measure on, and how many of them the network was made of, where that is known."""
    if data is None:
        return _own_images(opened, max_pixels)
    return _given_images(opened, data, max_pixels)


def _own_images(opened: "Run", max_pixels: int) -> tuple["ImageSet", int | None]:
    """Those that were held out for the run's figures; of which it has seen none."""
    from distillnet.job.provenance import held_out

    source = opened.sources.get("val") or opened.sources.get("data")
    images, gone = held_out(
        opened.directory, source, opened.classes, opened.mission, max_pixels=max_pixels
    )
    if gone:
        warn(f"{gone} of the {len(images) + gone} images that were held out are not there any more")
    return images, 0


def _given_images(opened: "Run", data: Path, max_pixels: int) -> tuple["ImageSet", int | None]:
    """The user's, and how many of them the network was made of; None where nobody knows."""
    from distillnet.images import open_images
    from distillnet.job.provenance import read_provenance

    folders = open_images(data, opened.classes, opened.mission.indices, max_pixels=max_pixels)
    images, known = kept_apart(folders), read_provenance(opened.directory)
    warn_left_out(folders.left_out)
    if known is None:
        if folders.val is None:
            warn(
                f"{data} has no val/ or test/: these are all of its images. Those that the network "
                "was distilled on flatter it."
            )
        return images, None
    if seen := known.seen(images):
        warn(
            f"{seen} of these {len(images)} images are among those that the network was made from, "
            "and flatter it; without --data, those that were held out are used."
        )
    return images, seen
