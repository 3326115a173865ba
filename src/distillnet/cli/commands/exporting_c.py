"""What ``export --format c`` does, in either precision."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillnet.cli.checks import check_run
from distillnet.cli.commands.export_options import COptions, FormOptions, Target
from distillnet.cli.common import run_folder
from distillnet.cli.output import for_results, print_json, print_table, warn
from distillnet.cli.process.terminal import printable
from distillnet.files import new_folder
from distillnet.files.results import C_FOLDER
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.deploy import Int8Folder
    from distillnet.job.partition import Images
    from distillnet.job.runs import Run

__all__ = ["write_c_folder", "write_int8_folder"]


_FORMS = {True: "switchable, all weights", False: "compact, one mission"}


def write_c_folder(run: Path, form: FormOptions, c: COptions, as_json: bool) -> None:
    """Write a run, and others as its missions, as C in float32, and say what it became."""
    for folder in (run, *c.others):
        check_run(folder, packed=True)
    if c.model is not None:
        check_model(c.model)
    from distillnet.deploy import TOLERANCE, export_c
    from distillnet.engine import check_prefix
    from distillnet.job.runs import open_run

    check_prefix(c.prefix)
    opened = open_run(run_folder(run))
    runs = [open_run(run_folder(other)) for other in c.others]
    shared = None
    if c.packed:
        from distillnet.models.packed import read_packed

        shared = read_packed(run).shared.values()
    out = form.folder(run)
    with for_results(), new_folder(out, C_FOLDER) as work:
        done = export_c(
            opened, work, c.prefix, runs,
            as_missions=c.as_missions, loadable=c.loadable, model=c.model,
            with_unknown=form.with_unknown, by_rows=c.target is Target.cortex_m, shared=shared,
            command=_command(run, form, c),
        )  # fmt: skip
    values: dict[str, Any] = {"out": str(out), "format": "c", "prefix": c.prefix}
    values["tolerance"] = TOLERANCE
    values |= asdict(done)
    if as_json:
        print_json(values)
        return
    if any(m.difference is None for m in done.missions):
        warn("There is no C compiler here, so the code was not run; run `make test` in the folder.")
    rows = [
        ["Folder", str(out)],
        ["Form", _FORMS[c.as_missions]],
        ["Weights", f"{done.weight_bytes:,} bytes"],
        *(
            [["Packed in flash", f"{done.packed_bytes:,} bytes, decoded into memory exactly"]]
            if done.packed_bytes
            else []
        ),
        [
            "Arena",
            f"{done.arena_bytes:,} bytes, {done.arena_share:.3f} of all that is alive at once",
        ],
    ]
    for m in done.missions:
        told = "not compared" if m.difference is None else f"differs by {m.difference:.1e}"
        told += " of the scores' range"
        if m.mac_ratio is not None:
            told += f"; {m.mac_ratio:.2f} x fewer multiply-adds"
        rows.append([f"Mission {m.name}", f"{', '.join(m.classes)}; {told}"])
    print_table("c, float32", ["", ""], rows, 2)


def write_int8_folder(
    runs: Sequence[tuple["Run", "Images"]],
    run: Path,
    form: FormOptions,
    c: COptions,
    as_json: bool,
) -> None:
    """Write a run, which lies in ``run``, and others as its missions, as C in 8 bits."""
    from distillnet.deploy import export_int8_c

    (opened, images), *others = runs
    out = form.folder(run)
    with for_results(), new_folder(out, C_FOLDER) as work:
        done = export_int8_c(
            opened, work, c.prefix, images, others,
            as_missions=c.as_missions, model=c.model, target=c.target.value,
            max_loss_pp=form.max_loss, with_unknown=form.with_unknown,
            command=_command(run, form, c),
        )  # fmt: skip
    if as_json:
        print_json(_int8_json(done, out, c))
        return
    share = done.float_weight_bytes / done.weight_bytes
    rows = [
        ["Folder", str(out)],
        ["Form", _FORMS[done.switchable]],
        ["Weights", f"{done.weight_bytes:,} bytes, 1/{share:.1f} of float32's"],
        ["Arena", f"{done.arena_bytes:,} bytes"],
        ["Calibration", done.calibration],
    ]
    for m in done.missions:
        told = [
            f"{100 * m.result.accuracy:.1f} %, {m.loss_pp:+.2f} points lost from the original",
            f"{m.agreement.decisions} of {m.agreement.images} val images decided differently from "
            "float32",
        ]
        if m.mac_ratio is not None:
            told.append(f"{m.mac_ratio:.2f} x fewer multiply-adds")
        rows.append([f"Mission {m.name}", "; ".join([", ".join(m.classes), *told])])
    print_table("c, int8", ["", ""], rows, 2)


def _int8_json(done: "Int8Folder", out: Path, c: COptions) -> dict[str, Any]:
    missions = [
        {
            "name": m.name,
            "classes": list(m.classes),
            "largest_difference": m.agreement.largest,
            "different_decisions": m.agreement.decisions,
            "compared_on": m.agreement.images,
            "accuracy": m.result.accuracy,
            "loss_pp": m.loss_pp,
            "mac_ratio": m.mac_ratio,
        }
        for m in done.missions
    ]
    first = dict(missions[0])  # as before there could be several
    return {
        "out": str(out),
        "format": "c",
        "precision": "int8",
        "prefix": c.prefix,
        "target": c.target.value,
        "switchable": done.switchable,
        "mission": first.pop("name"),
        **first,
        "calibration": done.calibration,
        "weight_bytes": done.weight_bytes,
        "float_weight_bytes": done.float_weight_bytes,
        "arena_bytes": done.arena_bytes,
        "missions": missions,
    }


def _command(run: Path, form: FormOptions, c: COptions) -> str:
    """The command line, to stand in the files."""
    words = ["export", _shown(run), "--format", "c", "--prefix", c.prefix]
    words += ["--switchable"] * c.as_missions
    words += ["--loadable"] * c.loadable
    words += ["--with-unknown"] * form.with_unknown
    words += ["--packed"] * c.packed
    words += ["--target", c.target.value] if c.target is not Target.vectors else []
    words += [word for other in c.others for word in ("--mission", _shown(other))]
    words += ["--int8"] * form.int8
    return "distillnet " + shlex.join(words)


def _shown(run: Path) -> str:
    """A run as files that go elsewhere may name it: without the folders that it lies in."""
    return printable(run.resolve().name)
