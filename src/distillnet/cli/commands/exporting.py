"""The command that writes a run for another runtime, and checks what it wrote."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillnet.cli.checks import check_folder, check_run
from distillnet.cli.commands.export_options import COptions, Format, FormOptions
from distillnet.cli.commands.exporting_c import write_c_folder, write_int8_folder
from distillnet.cli.common import run_folder
from distillnet.cli.groups import grouped
from distillnet.cli.options import ImageOptions, JsonOpt, PackedRunArg
from distillnet.cli.output import print_json, print_table, warn
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.deploy import Exported
    from distillnet.job.partition import Images
    from distillnet.job.runs import Run

__all__ = ["export_command", "images_of_run"]


_FILE_NAMES = {"float32": "model.onnx", "float16": "model-fp16.onnx", "int8": "model-int8.onnx"}
_APART = ("val", "search", "atlas")  # from the images of --data


@grouped
def export_command(
    run: PackedRunArg, form: FormOptions, c: COptions, as_json: JsonOpt = False
) -> None:
    """Write the distilled network for another runtime, and check that it agrees."""
    form.check(run, c)
    if form.format_ is not Format.c:
        _export_file(run, form, as_json)
    elif form.int8:
        _export_int8_c(run, form, c, as_json)
    else:
        write_c_folder(run, form, c, as_json)


def _export_file(run: Path, asked: FormOptions, as_json: bool) -> None:
    precision = "int8" if asked.int8 else "float16" if asked.fp16 else "float32"
    check_run(run, packed=True)
    check_folder(asked.data, "--data", "the folder of images that the run was distilled on")
    name = _FILE_NAMES[precision] if asked.format_ is Format.onnx else "export.pt2"
    path = asked.out or run / name
    check_writable(path)
    from distillnet.deploy import Form, export
    from distillnet.job.runs import open_run

    form = Form(
        asked.format_.value, precision, asked.batch, asked.with_preprocessing, asked.with_unknown
    )
    opened = open_run(run_folder(run))
    images = images_of_run(opened, asked.data)
    if images is None:
        warn(
            "The run's images are not where they were; comparing on noise. Pass their folder with "
            "--data."
        )
    with new_file(path) as work:
        done = export(opened, work, form, images, asked.max_loss)
    values = _exported_json(done, path, opened)
    if as_json:
        print_json(values)
    else:
        _print_exported(values)


def _export_int8_c(run: Path, form: FormOptions, c: COptions, as_json: bool) -> None:
    for folder in (run, *c.others):
        check_run(folder, packed=True)
    if c.model is not None:
        check_model(c.model)
    check_folder(form.data, "--data", "the folder of images that the run was distilled on")
    from distillnet.engine import check_prefix
    from distillnet.job.runs import open_run

    check_prefix(c.prefix)
    runs = []
    for folder in (run, *c.others):
        opened = open_run(run_folder(folder))
        images = images_of_run(opened, form.data)
        if images is None:
            raise InputError(
                f"--int8 needs the images of {folder} to take the ranges of activations from; pass "
                "--data"
            )
        runs.append((opened, images))
    write_int8_folder(runs, run, form, c, as_json)


def images_of_run(run: "Run", data: Path | None) -> "Images | None":
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
    return folders.split(folders.find(run.mission, run.classes), run.seed)


def _exported_json(done: "Exported", path: Path, run: "Run") -> dict[str, Any]:
    from distillnet.deploy import TOLERANCE

    return {
        "out": str(path),
        "format": done.form.format,
        "precision": done.form.precision,
        "calibration": done.calibration,
        "batch": done.form.batch,
        "with_preprocessing": done.form.with_preprocessing,
        "with_unknown": done.form.with_unknown,
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
    tolerance = values["tolerance"]
    what = "val images" if values["real_images"] else "images of noise"
    original = values["original_weight_bytes"]
    rows = [
        ["File", values["out"]],
        ["Bytes", f"{values['bytes']:,}, 1/{original / values['bytes']:.1f} of the original's"],
        [
            "Largest difference from torch",
            f"{values['largest_difference']:.1e} of the scores' range"
            + (f", {tolerance:.0e} allowed" if values["precision"] == "float32" else ""),
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
