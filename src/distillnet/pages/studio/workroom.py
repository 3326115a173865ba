"""What a studio has open: a run, the networks of its front, the original where it is at hand."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from distillnet.deploy import Form, export, export_c
from distillnet.errors import InputError
from distillnet.files import new_file, new_folder
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.files.results import C_FOLDER, RUN
from distillnet.job.front import fitting_point, front_folders, take_from_front
from distillnet.job.results import finite_loss_pp
from distillnet.job.runs import Run, network_scores, open_run
from distillnet.pages.subject import Original, Subject, read_bitmaps
from distillnet.search import Budget

__all__ = ["FORMATS", "Candidate", "Workroom"]

FORMATS = ("onnx", "pt2", "c")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILES = {"onnx": "model.onnx", "pt2": "export.pt2", "c": "c"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A network of the front: its figures, and the folder that its files lie in."""

    folder: Path
    result: dict[str, Any]

    @property
    def figures(self) -> dict[str, Any]:
        """What the page shows of it."""
        after, search = self.result["distilled"], self.result["search"]
        low, high = self.result["loss_ci95_pp"]
        return {
            "mac_ratio": self.result["mac_ratio"],
            "param_ratio": self.result["param_ratio"],
            "work_ratio": self.result.get("work_ratio"),
            "macs": after["macs"],
            "params": after["params"],
            "input_size": after["input_size"],
            "bytes": (self.folder / "model.pt2").stat().st_size,
            "accuracy": after["accuracy"],
            "accuracy_before": self.result["baseline"]["accuracy"],
            "loss_pp": self.result["loss_pp"],
            "low_pp": low,
            "high_pp": high,
            "worst_class_loss_pp": self.result["worst_class_loss_pp"],
            "expected_pp": search["estimate_pp"],
            "uncertain_pp": search["estimate_uncertain_pp"],
        }


class Workroom:
    """A run to try budgets on, and a folder to write others to.

    Args:
        subject: the run and all that is at hand of it.
        out: where runs are written, each in a folder of its own.
    """

    def __init__(self, subject: Subject, out: Path) -> None:
        self.subject, self.out = subject, out
        self.run: Run = subject.run
        points = front_folders(self.run) or [(self.run.directory, self.run.result)]
        self.candidates = tuple(Candidate(folder, result) for folder, result in points)
        self._networks: dict[int, Callable[[Tensor], Tensor]] = {}
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._lock = Lock()

    @property
    def original(self) -> Original | None:
        """The original with its own weights, where they are at hand."""
        original = self.subject.original
        return original if original is not None and original.own_weights else None

    @cached_property
    def confidence(self) -> float:
        """How sure the search had to be."""
        return float(self.run.result["budget"]["confidence"])

    def choose(self, max_loss_pp: float) -> int:
        """Which candidate a budget gives; InputError where it gives none."""
        budget = self._budget(max_loss_pp)
        points = [(one.folder, one.result) for one in self.candidates]
        folder, _ = fitting_point(self.run, points, budget)
        return next(i for i, one in enumerate(self.candidates) if one.folder == folder)

    def _budget(self, max_loss_pp: float) -> Budget:
        return Budget(max_loss_pp=max_loss_pp, confidence=self.confidence)

    def network(self, number: int) -> tuple[Candidate, Run, Callable[[Tensor], Tensor]]:
        """A candidate, the run it would be, and its network, which is read once."""
        if not 0 <= number < len(self.candidates):
            raise InputError(
                f"found the network {number}; expected 0 to {len(self.candidates) - 1}"
            )
        one = self.candidates[number]
        height, width = one.result["distilled"]["input_size"]
        how = self.run.preprocessing.with_input_size((height, width))
        as_run = replace(self.run, directory=one.folder, result=one.result, preprocessing=how)
        with self._lock:
            if number not in self._networks:
                within = (one.folder / "model.pt2").relative_to(self.run.directory).as_posix()
                check_sealed(self.run.directory, read_manifest(self.run.directory), [within])
                self._networks[number] = network_scores(as_run)
            return one, as_run, self._networks[number]

    def kept(self, number: int) -> dict[str, Tensor]:
        """The keep maps of a candidate by site; a site without one is kept whole."""
        with self._lock:
            if number not in self._kept:
                self._kept[number] = read_bitmaps(self.run, self.candidates[number].folder)[0]
            return self._kept[number]

    def written(self) -> list[str]:
        """The names of runs in the folder."""
        if not self.out.is_dir():
            return []
        return sorted(p.name for p in self.out.iterdir() if (p / RUN.marker).is_file())

    def make(self, max_loss_pp: float, name: str, on_progress: Progress) -> dict[str, Any]:
        """Write the run that a budget gives; what there is of it."""
        path = self._place(name)
        on_progress("write", 0, 1)
        with new_folder(path, RUN, [self.run.directory]) as folder:
            result = take_from_front(self.run, self._budget(max_loss_pp), folder)
            on_progress("write", 1, 1)
        return {"name": name, "mac_ratio": result["mac_ratio"], "files": _files(path)}

    def export(self, name: str, form: str, on_progress: Progress) -> dict[str, Any]:
        """Write a run of the folder for another runtime."""
        if form not in FORMATS:
            raise InputError(f"found the format {form!r}; expected one of {', '.join(FORMATS)}")
        path = self._place(name)
        run = open_run(path)
        target = path / _FILES[form]
        on_progress("export", 0, 1)
        if form == "c":
            with new_folder(target, C_FOLDER) as folder:
                export_c(run, folder, "model", [], as_missions=False, model=None,
                         command=f"distillnet export {name} --format c")  # fmt: skip
                on_progress("export", 1, 1)
        else:
            with new_file(target) as work:
                export(run, work, Form(form), None)
                on_progress("export", 1, 1)
        return {"name": name, "written": target.name, "files": _files(path)}

    def _place(self, name: str) -> Path:
        """Where a run of this name lies; InputError for what leads elsewhere."""
        if not _NAME.fullmatch(name):
            raise InputError(
                f"found the name {name!r}; expected letters, digits, dots, dashes and underscores, "
                "64 at most, a letter or digit first"
            )
        return self.out / name

    @property
    def budget_pp(self) -> float | None:
        """What the run itself was allowed to lose."""
        return finite_loss_pp(self.run.result)


def _files(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.iterdir())
