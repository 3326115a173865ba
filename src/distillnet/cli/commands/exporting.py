"""The command that writes a run for another runtime, and checks what it wrote."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_folder, check_run
from distillnet.cli.commands.exporting_c import AskedC, write_c_folder, write_int8_folder
from distillnet.cli.common import run_folder
from distillnet.cli.groups import IMAGES, NETWORK, OUTPUT, SELDOM
from distillnet.cli.options import ImageOptions, JsonOpt, OriginalOpt, RunArg
from distillnet.cli.output import print_json, print_table, warn
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.deploy import Exported
    from distillnet.job.partition import Images
    from distillnet.job.runs import Run

__all__ = ["Format", "Target", "export_command", "images_of_run"]


class Format(StrEnum):
    """What ``export`` writes."""

    onnx = "onnx"
    pt2 = "pt2"
    c = "c"


class Target(StrEnum):
    """What ``--format c`` is laid out for; ``deploy.int8.c.BLOCKS``."""

    vectors = "vectors"
    cortex_m = "cortex-m"


_FILE_NAMES = {"float32": "model.onnx", "float16": "model-fp16.onnx", "int8": "model-int8.onnx"}
_APART = ("val", "search", "atlas")  # from the images of --data
_PREFIX = "model"  # of names in C


def export_command(
    run: RunArg,
    format_: Annotated[
        Format, typer.Option("--format", help="What to write.", rich_help_panel=OUTPUT)
    ] = Format.onnx,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The file to write, or for c the folder.",
            show_default="RUN/model.onnx, model-fp16.onnx, model-int8.onnx, export.pt2 or c",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Fix the batch size.",
            show_default="any size",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Accept uint8 RGB images (N, H, W, 3) of the input size, and normalise them in "
            "the network.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    with_unknown: Annotated[
        bool,
        typer.Option(
            "--with-unknown",
            help="Add a score, by the rule that `unknown` fitted, that is largest for images of "
            "none of the classes.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantise to 8 bits (onnx, c).",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16",
            help="Store weights in half precision (onnx).",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The images that the run was distilled on; the file is checked with them.",
            show_default="where they were when RUN was made",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Accuracy that may be lost in total, from the original network to the --int8 or "
            "--fp16 file, in percentage points.",
            show_default="the run's",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Prefix of all names in the C code (c).", rich_help_panel=SELDOM
        ),
    ] = _PREFIX,
    as_missions: Annotated[
        bool,
        typer.Option(
            "--switchable",
            help="Keep all weights, so that the C code can switch between missions; needs runs of "
            "--method paper or --no-split (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False,
    loadable: Annotated[
        bool,
        typer.Option(
            "--loadable",
            help="With --switchable: also write code that loads missions later, from what `mission "
            "block` makes of packages (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False,
    mission: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Another run of the same network, to be one of the missions; may be given several "
            "times (c).",
            show_default="none",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    target: Annotated[
        Target,
        typer.Option(
            help="What to lay the code out for: processors with vector units, or microcontrollers, "
            "for which steps take turns row by row, in a fraction of the memory, and no channels "
            "are padded in 8 bits (c).",
            rich_help_panel=SELDOM,
        ),
    ] = Target.vectors,
    packed: Annotated[
        bool,
        typer.Option(
            "--packed",
            help="Keep the weights of a packed run packed in the C code, which decodes them into "
            "memory when a device starts; RUN is a file that `pack` wrote (c).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False,
    model: OriginalOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Write the distilled network for another runtime, and check that it agrees."""
    if int8 and fp16:
        raise typer.BadParameter("--int8 and --fp16 together; expected one of them")
    if run.is_file() and out is None:
        raise typer.BadParameter(f"--out is missing; it is required where RUN is a file, {run}")
    if packed and (format_.value != "c" or int8 or as_missions or not run.is_file()):
        raise typer.BadParameter(
            "--packed needs --format c in float32, without --switchable, and as RUN a file that "
            "`distillnet pack` wrote"
        )
    if format_.value == "c":
        others = {
            "--fp16": fp16,
            "--batch": batch is not None,
            "--with-preprocessing": with_preprocessing,
            "--data": data is not None and not int8,
            "--max-loss": max_loss is not None and not int8,
            "--loadable": int8 and loadable,
        }
        if found := [name for name, given in others.items() if given]:
            raise typer.BadParameter(
                f"--format c{' --int8' * int8} with {', '.join(found)}; the C engine takes one "
                "normalised float32 image, is compared on noise in float32, and loads missions "
                "later in float32 alone. Leave them out, or choose --format onnx"
            )
        if model is not None and not as_missions:
            raise typer.BadParameter("--model needs --switchable; nothing else needs the original")
        others_of = tuple(mission or ())
        asked = AskedC(
            out or run / "c", prefix, as_missions, loadable, others_of, model, with_unknown,
            packed, target.value,
        )  # fmt: skip
        if int8:
            _export_int8_c(run, asked, data, target.value, max_loss, as_json)
        else:
            write_c_folder(run, asked, as_json)
        return
    if (
        as_missions
        or loadable
        or mission
        or model
        or prefix != _PREFIX
        or target is not Target.vectors
    ):
        raise typer.BadParameter(
            "--prefix, --switchable, --loadable, --mission, --model and --target need --format c"
        )
    precision = "int8" if int8 else "float16" if fp16 else "float32"
    check_run(run)
    check_folder(data, "--data", "the folder of images that the run was distilled on")
    path = out or run / (_FILE_NAMES[precision] if format_ is Format.onnx else "export.pt2")
    check_writable(path)
    from distillnet.deploy import Form, export
    from distillnet.job.runs import open_run

    form = Form(format_.value, precision, batch, with_preprocessing, with_unknown)
    opened = open_run(run_folder(run))
    images = images_of_run(opened, data)
    if images is None:
        warn("The run's images are not where they were; comparing on noise. --data tells where.")
    with new_file(path) as work:
        done = export(opened, work, form, images, max_loss)
    values = _exported_json(done, path, opened)
    if as_json:
        print_json(values)
    else:
        _print_exported(values)


def _export_int8_c(
    run: Path,
    asked: AskedC,
    data: Path | None,
    target: str,
    max_loss: float | None,
    as_json: bool,
) -> None:
    for folder in (run, *asked.others):
        check_run(folder)
    if asked.model is not None:
        check_model(asked.model)
    check_folder(data, "--data", "the folder of images that the run was distilled on")
    from distillnet.engine import check_prefix
    from distillnet.job.runs import open_run

    check_prefix(asked.prefix)
    runs = []
    for folder in (run, *asked.others):
        opened = open_run(run_folder(folder))
        images = images_of_run(opened, data)
        if images is None:
            raise InputError(
                f"--int8 needs the images of {folder} to take the ranges of activations from; pass "
                "--data"
            )
        runs.append((opened, images))
    write_int8_folder(runs, run, asked, target, max_loss, as_json)


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
