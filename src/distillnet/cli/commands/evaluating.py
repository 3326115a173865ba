"""The command that measures a run's accuracy, in each runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_file, check_folder, check_run
from distillnet.cli.common import kept_apart, run_folder
from distillnet.cli.groups import IMAGES, NETWORK
from distillnet.cli.missions.unknowns import (
    STRANGERS,
    Asked,
    Reading,
    UnknownOpt,
    WeightsOpt,
    measure_unknown,
    print_unknown,
)
from distillnet.cli.options import (
    BatchOpt,
    JsonOpt,
    OriginalOpt,
    PixelsOpt,
    RunArg,
    Runtime,
    UnreadableOpt,
    WorkersOpt,
)
from distillnet.cli.output import (
    print_json,
    print_table,
    progress,
    warn,
    warn_left_out,
    warn_unreadable,
)
from distillnet.images.left_out import MAX_PIXELS, MAX_UNREADABLE_PERCENT

if TYPE_CHECKING:
    from distillnet.images import ImageSet
    from distillnet.job.runs import Run

__all__ = ["evaluate_command"]


def evaluate_command(
    run: RunArg,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images: DIR/CLASS/IMAGE, or train/ and val/ of that form, of which "
            "val/ is taken.",
            show_default="the images held out for the run's own figures",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    unknown: UnknownOpt = None,
    compare_original: Annotated[
        bool,
        typer.Option(
            "--compare-original",
            help="With --unknown: run the original over the same images, too, and say how well its "
            "simple scores tell them apart.",
            show_default="off",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    model: OriginalOpt = None,
    weights: WeightsOpt = None,
    runtime: Annotated[
        Runtime, typer.Option(help="What runs the network.", rich_help_panel=NETWORK)
    ] = Runtime.torch,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What `export` wrote: a file for onnx, a folder for c.",
            show_default="RUN/model.onnx or RUN/c",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Compile and run the folder of C (c); it is code, so it has to be yours or from "
            "somebody you trust.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    max_unreadable: UnreadableOpt = MAX_UNREADABLE_PERCENT,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """Measure a distilled network's accuracy, overall and per class.

    On the images that were held out for its own figures, or on those of DIR. If it was made from
    some of these, that is said first. With --unknown, also how often the rule `unknown` fitted
    takes other images for a class, and refuses those of the mission.
    """
    if file is not None and runtime is Runtime.torch:
        raise typer.BadParameter("--file needs --runtime onnx or c; torch reads RUN/model.pt2")
    if trust and runtime is not Runtime.c:
        raise typer.BadParameter("--trust needs --runtime c; nothing else here is code")
    if unknown is None and compare_original:
        raise typer.BadParameter("--compare-original needs --unknown")
    if not compare_original and (model is not None or weights is not None):
        raise typer.BadParameter("--model and --weights need --compare-original")
    check_file(weights, "--weights", "the weights that the run was made of")
    check_run(run)
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    check_folder(unknown, "--unknown", STRANGERS)
    from distillnet.deploy import evaluate_c, evaluate_onnx, open_onnx
    from distillnet.job.runs import evaluate_run, open_run

    folder = run_folder(run)
    opened = open_run(folder)
    images, seen = (
        _own_images(opened, max_pixels) if data is None else _given_images(opened, data, max_pixels)
    )
    reading = Reading(batch_size, workers, max_unreadable, max_pixels)
    if unknown is not None:
        asked = Asked(runtime.value, file, trust, compare_original, model, weights)
        found = measure_unknown(opened, images, unknown, reading, asked)
        print_unknown(run, found | {"n_seen": seen}, as_json)
        return
    with progress() as on_progress:
        stream = reading.batches(images, opened.preprocessing, on_progress, "evaluate")
        if runtime is Runtime.onnx:
            result = evaluate_onnx(opened, open_onnx(file or folder / "model.onnx"), stream)
        elif runtime is Runtime.c:
            result = evaluate_c(opened, file or folder / "c", stream, trust=trust)
        else:
            result = evaluate_run(opened, stream)
    warn_unreadable(stream.unreadable)
    values: dict[str, Any] = {
        "accuracy": result.accuracy,
        "accuracy_open": None,
        "per_class": dict(result.per_class),
        "n": result.n,
        "n_seen": seen,
        "runtime": runtime.value,
    }
    if as_json:
        print_json(values)
        return
    rows = [[name, f"{100 * share:.1f} %"] for name, share in result.per_class.items()]
    rows.append(["all", f"{100 * result.accuracy:.1f} %"])
    print_table(f"{run} on {result.n} images", ["class", "accuracy"], rows)


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
