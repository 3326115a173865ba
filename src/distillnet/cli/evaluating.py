"""The command that measures a run's accuracy, in each runtime."""

from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.common import kept_apart
from distillnet.cli.options import (
    BatchOpt,
    DataOpt,
    JsonOpt,
    PixelsOpt,
    RunArg,
    Runtime,
    WorkersOpt,
)
from distillnet.cli.output import print_json, print_table, progress, warn, warn_unreadable
from distillnet.deploy import evaluate_c, evaluate_onnx, open_onnx
from distillnet.images import MAX_PIXELS, load_batches, open_images
from distillnet.job.runs import evaluate_run, open_run

__all__ = ["evaluate_command"]


def evaluate_command(
    run: RunArg,
    data: DataOpt,
    runtime: Annotated[Runtime, typer.Option(help="What runs the network.")] = Runtime.torch,
    file: Annotated[
        Path | None,
        typer.Option(
            help="What `export` wrote: a file (onnx), a folder (c).",
            show_default="RUN/model.onnx, RUN/c",
        ),
    ] = None,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    max_pixels: PixelsOpt = MAX_PIXELS,
    as_json: JsonOpt = False,
) -> None:
    """Accuracy of a distilled network, whole and per class, on DATA/val or all of DATA."""
    if file is not None and runtime is Runtime.torch:
        raise typer.BadParameter("--file needs --runtime onnx or c; torch reads RUN/model.pt2")
    opened = open_run(run)
    folders = open_images(data, opened.classes, opened.mission.indices, max_pixels=max_pixels)
    with progress() as on_progress:
        images = kept_apart(folders)
        stream = load_batches(
            images,
            opened.preprocessing,
            batch_size=batch_size,
            workers=workers,
            on_image=lambda n: on_progress("evaluate", n, len(images)),
        )
        if runtime is Runtime.onnx:
            result = evaluate_onnx(opened, open_onnx(file or run / "model.onnx"), stream)
        elif runtime is Runtime.c:
            result = evaluate_c(opened, file or run / "c", stream)
        else:
            result = evaluate_run(opened, stream)
    warn_unreadable(stream.unreadable)
    if folders.val is None:
        warn(
            f"{data} has no val/ or test/: these are all of its images. Those that the network was "
            "distilled on flatter it."
        )
    values: dict[str, Any] = {
        "accuracy": result.accuracy,
        "accuracy_open": None,
        "per_class": dict(result.per_class),
        "n": result.n,
        "runtime": runtime.value,
    }
    if as_json:
        print_json(values)
        return
    rows = [[name, f"{100 * share:.1f} %"] for name, share in result.per_class.items()]
    rows.append(["all", f"{100 * result.accuracy:.1f} %"])
    print_table(f"{run} on {result.n} images", ["class", "accuracy"], rows)
