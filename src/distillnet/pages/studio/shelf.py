"""The folder that a studio writes runs to, each in a folder of its own, and exports of them."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from distillnet.deploy import Form, export, export_c
from distillnet.errors import InputError
from distillnet.files import new_file, new_folder
from distillnet.files.results import C_FOLDER, RUN
from distillnet.job.runs import open_run

__all__ = ["FORMATS", "Shelf"]

FORMATS = ("onnx", "pt2", "c")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILES = {"onnx": "model.onnx", "pt2": "export.pt2", "c": "c"}

Progress = Callable[[str, int, int], None]


class Shelf:
    """A folder of runs.

    Args:
        folder: it is made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def written(self) -> list[str]:
        """The names of the runs."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if (p / RUN.marker).is_file())

    def place(self, name: str) -> Path:
        """Where a run of this name lies; InputError for what leads elsewhere."""
        if not _NAME.fullmatch(name):
            raise InputError(
                f"found the name {name!r}; expected letters, digits, dots, dashes and underscores, "
                "64 at most, a letter or digit first"
            )
        return self.folder / name

    def new(self, name: str, reads: Sequence[Path | None]) -> AbstractContextManager[Path]:
        """A folder to write a run into, which takes its place when it is whole.

        Args:
            reads: what it must not replace.
        """
        return new_folder(self.place(name), RUN, reads)

    def files(self, name: str) -> list[str]:
        """What a run's folder holds."""
        path = self.place(name)
        return sorted(p.relative_to(path).as_posix() for p in path.iterdir())

    def export(self, name: str, form: str, on_progress: Progress) -> dict[str, Any]:
        """Write a run of the folder for another runtime."""
        if form not in FORMATS:
            raise InputError(f"found the format {form!r}; expected one of {', '.join(FORMATS)}")
        path = self.place(name)
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
        return {"name": name, "written": target.name, "files": self.files(name)}
