"""The command that writes a run for another runtime, and checks what it wrote."""

import shlex
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.options import ImageOptions, JsonOpt, RunArg
from distillnet.cli.output import print_json, print_table, warn
from distillnet.cli.terminal import printable
from distillnet.deploy import (
    FORMATS,
    TOLERANCE,
    Exported,
    Form,
    export,
    export_c,
)
from distillnet.engine import check_prefix
from distillnet.files import new_file, new_folder
from distillnet.files.results import C_FOLDER
from distillnet.job.runs import Run, open_run

__all__ = ["export_command"]

Format = StrEnum("Format", {name: name for name in (*FORMATS, "c")})  # type: ignore[misc]

_FILE_NAMES = {"float32": "model.onnx", "float16": "model-fp16.onnx", "int8": "model-int8.onnx"}
_APART = ("val", "search", "atlas")  # from the images of --data
_PREFIX = "model"  # of names in C


def export_command(
    run: RunArg,
    format_: Annotated[Format, typer.Option("--format", help="What to write.")] = Format("onnx"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; the folder for c.",
            show_default="RUN/model.onnx, model-fp16.onnx, model-int8.onnx, export.pt2 or c",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Fix the images computed at once.", show_default="any number"),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take uint8 images (N, H, W, 3), RGB, of the input size.",
            show_default="off",
        ),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to 8 bits (onnx).", show_default="off")
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store half precision (onnx).", show_default="off")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="The images that the run was distilled on, to check the file with.",
            show_default="where they were",
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Points that --int8 or --fp16 may lose in all, from the original on.",
            show_default="the run's",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What names in the C code begin with (c).")] = _PREFIX,
    as_missions: Annotated[
        bool,
        typer.Option(
            "--switchable",
            help="Keep all weights and make the run's bitmaps a mission (c, --method paper).",
            show_default="off",
        ),
    ] = False,
    mission: Annotated[
        list[Path] | None,
        typer.Option(
            help="A further run as a mission of the same weights; may be repeated (c).",
            show_default="none",
        ),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Write the distilled network for another runtime, and check what was written."""
    if int8 and fp16:
        raise typer.BadParameter("--int8 and --fp16 together; expected one of them")
    if format_.value == "c":
        others = {
            "--int8": int8,
            "--fp16": fp16,
            "--batch": batch is not None,
            "--with-preprocessing": with_preprocessing,
            "--data": data is not None,
            "--max-loss": max_loss is not None,
        }
        if found := [name for name, given in others.items() if given]:
            raise typer.BadParameter(
                f"--format c with {', '.join(found)}; the C engine takes one normalised float32 "
                "image and is compared on noise. Leave them out, or choose --format onnx"
            )
        check_prefix(prefix)
        _export_c(run, out or run / "c", prefix, as_missions, mission or [], as_json)
        return
    if as_missions or mission or prefix != _PREFIX:
        raise typer.BadParameter("--prefix, --switchable and --mission need --format c")
    precision = "int8" if int8 else "float16" if fp16 else "float32"
    form = Form(format_.value, precision, batch, with_preprocessing)
    opened = open_run(run)
    path = out or run / (_FILE_NAMES[precision] if form.format == "onnx" else "export.pt2")
    images = _images(opened, data)
    if images is None:
        warn("The run's images are not where they were; comparing on noise. --data names them.")
    with new_file(path) as work:
        done = export(opened, work, form, images, max_loss)
    values = _exported_json(done, path, opened)
    if as_json:
        print_json(values)
    else:
        _print_exported(values)


def _export_c(
    run: Path, out: Path, prefix: str, as_missions: bool, others: list[Path], as_json: bool
) -> None:
    opened = open_run(run)
    runs = [open_run(other) for other in others]
    words = ["export", _shown(run), "--format", "c", "--prefix", prefix]
    words += ["--switchable"] * as_missions
    words += [word for other in others for word in ("--mission", _shown(other))]
    command = "distillnet " + shlex.join(words)
    with new_folder(out, C_FOLDER) as work:
        done = export_c(opened, work, prefix, runs, as_missions=as_missions, command=command)
    values = {"out": str(out), "format": "c", "prefix": prefix, "tolerance": TOLERANCE}
    values |= asdict(done)
    if as_json:
        print_json(values)
        return
    if any(m.difference is None for m in done.missions):
        warn(
            "There is no C compiler here, so the code was not run; `make test` in the folder does."
        )
    rows = [
        ["Folder", str(out)],
        ["Form", "switchable, all weights" if as_missions else "compact, one mission"],
        ["Weights", f"{done.weight_bytes:,} bytes"],
        [
            "Arena",
            f"{done.arena_bytes:,} bytes, {done.arena_share:.3f} of all that is alive at once",
        ],
    ]
    for m in done.missions:
        told = "not compared" if m.difference is None else f"differs by {m.difference:.1e}"
        rows.append([f"Mission {m.name}", f"{', '.join(m.classes)}; {told} of the scores' range"])
    print_table("c, float32", ["", ""], rows, 2)


def _shown(run: Path) -> str:
    """A run as files that go elsewhere may name it: without the folders that it lies in."""
    return printable(run.resolve().name)


def _images(run: Run, data: Path | None) -> Any:
    """The run's images, split as the run split them; None where they are gone."""
    sources = {name: Path(path) if path else None for name, path in run.sources.items()}
    folder = data or sources.get("data")
    gone = any(path and not path.exists() for path in map(sources.get, ("data", *_APART)))
    if folder is None or (data is None and gone):
        return None
    if data is not None:  # others of the run's folders may be gone with its data
        sources = {name: path if path and path.exists() else None for name, path in sources.items()}
    folders = ImageOptions(
        data=folder,
        val=sources.get("val"),
        search=sources.get("search"),
        atlas=sources.get("atlas"),
    )
    return folders.split(run.classes, run.mission, run.seed)


def _exported_json(done: Exported, path: Path, run: Run) -> dict[str, Any]:
    return {
        "out": str(path),
        "format": done.form.format,
        "precision": done.form.precision,
        "calibration": done.calibration,
        "batch": done.form.batch,
        "with_preprocessing": done.form.with_preprocessing,
        "bytes": done.bytes,
        "original_weight_bytes": 4 * run.result["baseline"]["params"],
        "largest_difference": done.agreement.largest,
        "tolerance": TOLERANCE,
        "different_decisions": done.agreement.decisions,
        "compared_on": done.agreement.images,
        "real_images": done.real_images,
        "accuracy": done.result.accuracy if done.result else None,
        "loss_pp": done.loss_pp,
    }


def _print_exported(values: dict[str, Any]) -> None:
    what = "val images" if values["real_images"] else "images of noise"
    original = values["original_weight_bytes"]
    rows = [
        ["File", values["out"]],
        ["Bytes", f"{values['bytes']:,}, 1/{original / values['bytes']:.1f} of the original's"],
        [
            "Largest difference from torch",
            f"{values['largest_difference']:.1e} of the scores' range"
            + (f", {TOLERANCE:.0e} allowed" if values["precision"] == "float32" else ""),
        ],
        [
            "Different decisions",
            f"{values['different_decisions']} of {values['compared_on']} {what}",
        ],
    ]
    if values["accuracy"] is not None:
        loss = f"{values['loss_pp']:+.2f} points lost from the original"
        rows.append(["Accuracy", f"{100 * values['accuracy']:.1f} %, {loss}"])
    if values["calibration"]:
        rows.append(["Calibration", values["calibration"]])
    print_table(f"{values['format']}, {values['precision']}", ["", ""], rows, 2)
