"""What ``export --format c`` does, in either precision."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillnet.cli.checks import check_run
from distillnet.cli.common import run_folder
from distillnet.cli.output import print_json, print_table, warn
from distillnet.cli.process.terminal import printable
from distillnet.files import new_folder
from distillnet.files.results import C_FOLDER
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.deploy import Int8Folder
    from distillnet.job.partition import Images
    from distillnet.job.runs import Run

__all__ = ["AskedC", "write_c_folder", "write_int8_folder"]


_FORMS = {True: "switchable, all weights", False: "compact, one mission"}


@dataclass(frozen=True)
class AskedC:
    """What was asked of ``--format c``."""

    out: Path
    prefix: str
    as_missions: bool
    loadable: bool
    others: tuple[Path, ...]
    model: str | None
    with_unknown: bool
    packed: bool = False
    target: str = "vectors"

    def command(self, run: Path) -> str:
        """The command line, to stand in the files."""
        words = ["export", _shown(run), "--format", "c", "--prefix", self.prefix]
        words += ["--switchable"] * self.as_missions
        words += ["--loadable"] * self.loadable
        words += ["--with-unknown"] * self.with_unknown
        words += ["--packed"] * self.packed
        words += ["--target", self.target] if self.target != "vectors" else []
        words += [word for other in self.others for word in ("--mission", _shown(other))]
        return "distillnet " + shlex.join(words)


def write_c_folder(run: Path, asked: AskedC, as_json: bool) -> None:
    """Write a run, and others as its missions, as C in float32, and say what it became."""
    for folder in (run, *asked.others):
        check_run(folder)
    if asked.model is not None:
        check_model(asked.model)
    from distillnet.deploy import TOLERANCE, export_c
    from distillnet.engine import check_prefix
    from distillnet.job.runs import open_run

    check_prefix(asked.prefix)
    opened = open_run(run_folder(run))
    runs = [open_run(run_folder(other)) for other in asked.others]
    shared = None
    if asked.packed:
        from distillnet.models.packed import read_packed

        shared = read_packed(run).shared.values()
    with new_folder(asked.out, C_FOLDER) as work:
        done = export_c(
            opened, work, asked.prefix, runs,
            as_missions=asked.as_missions, loadable=asked.loadable, model=asked.model,
            with_unknown=asked.with_unknown, by_rows=asked.target == "cortex-m", shared=shared,
            command=asked.command(run),
        )  # fmt: skip
    values: dict[str, Any] = {"out": str(asked.out), "format": "c", "prefix": asked.prefix}
    values["tolerance"] = TOLERANCE
    values |= asdict(done)
    if as_json:
        print_json(values)
        return
    if any(m.difference is None for m in done.missions):
        warn("There is no C compiler here, so the code was not run; run `make test` in the folder.")
    rows = [
        ["Folder", str(asked.out)],
        ["Form", _FORMS[asked.as_missions]],
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
    asked: AskedC,
    max_loss: float | None,
    as_json: bool,
) -> None:
    """Write a run, which lies in ``run``, and others as its missions, as C in 8 bits."""
    from distillnet.deploy import export_int8_c

    (opened, images), *others = runs
    with new_folder(asked.out, C_FOLDER) as work:
        done = export_int8_c(
            opened, work, asked.prefix, images, others,
            as_missions=asked.as_missions, model=asked.model, target=asked.target,
            max_loss_pp=max_loss, with_unknown=asked.with_unknown,
            command=f"{asked.command(run)} --int8",
        )  # fmt: skip
    if as_json:
        print_json(_int8_json(done, asked))
        return
    share = done.float_weight_bytes / done.weight_bytes
    rows = [
        ["Folder", str(asked.out)],
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


def _int8_json(done: "Int8Folder", asked: AskedC) -> dict[str, Any]:
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
        "out": str(asked.out),
        "format": "c",
        "precision": "int8",
        "prefix": asked.prefix,
        "target": asked.target,
        "switchable": done.switchable,
        "mission": first.pop("name"),
        **first,
        "calibration": done.calibration,
        "weight_bytes": done.weight_bytes,
        "float_weight_bytes": done.float_weight_bytes,
        "arena_bytes": done.arena_bytes,
        "missions": missions,
    }


def _shown(run: Path) -> str:
    """A run as files that go elsewhere may name it: without the folders that it lies in."""
    return printable(run.resolve().name)
