"""What can be said of the input before torch is imported, which takes seconds."""

from collections.abc import Collection, Iterable
from pathlib import Path

import typer

from distillnet.classes import ClassTable, Mission, mission_of_folders, parse_mission, read_lines
from distillnet.errors import InputError
from distillnet.files.packed import is_packed
from distillnet.job.layout import RUN_MARKER

__all__ = [
    "asked_mission",
    "check_apart",
    "check_file",
    "check_folder",
    "check_run",
    "refuse_beside",
]


def check_run(path: Path, *, packed: bool = False) -> None:
    """Raise InputError unless there is a run folder.

    Args:
        packed: whether a packed file serves as well, which may hold a run.
    """
    if (path / RUN_MARKER).is_file():
        return
    if is_packed(path):
        if packed:
            return
        raise InputError(
            f"{path} is a packed file; expected a run folder. `distillnet unpack {path} --out RUN` "
            "makes one of it"
        )
    found = "no such folder" if not path.exists() else f"no {RUN_MARKER} in it"
    if path.exists() and not path.is_dir():
        found = "a file"
    raise InputError(
        f"{path} is not a run folder ({found}); expected a folder that `distillnet distill` wrote"
    )


def check_file(path: Path | None, option: str, expected: str) -> None:
    """Raise InputError where an option names a file that is not there, or is none."""
    if path is None or path.is_file():
        return
    if path.is_dir():
        found = "is a folder"
    else:
        found = "is not a regular file" if path.exists() else "does not exist"
    raise InputError(f"{option}: {path} {found}; expected {expected}")


def check_folder(path: Path | None, option: str, expected: str) -> None:
    """Raise InputError where an option names a folder that is not there, or is none."""
    if path is None or path.is_dir():
        return
    found = "is not a folder" if path.exists() else "does not exist"
    raise InputError(f"{option}: {path} {found}; expected {expected}")


def check_apart(out: Path, reads: Iterable[Path | None]) -> None:
    """Raise InputError where ``out`` lies in a folder of images, among which it would be taken."""
    for read in reads:
        if read is not None and out.resolve().is_relative_to(read.resolve()):
            raise InputError(
                f"--out {out} lies inside the folder of images {read}, where results would be "
                "taken for images of a class; choose an --out elsewhere"
            )


def refuse_beside(context: typer.Context, what: str, allowed: Collection[str]) -> None:
    """BadParameter where an option was given that would silently be left aside beside another.

    Args:
        allowed: parameters of the command, by their names in Python.
    """
    given, expected = [], []
    for parameter in context.command.params:
        name, shown = parameter.name or "", parameter.opts[0]
        source = context.get_parameter_source(name)
        if name in allowed:
            expected += [shown] if shown.startswith("--") else []
        elif source and source.name == "COMMANDLINE":
            given.append(shown if shown.startswith("--") else shown.upper())
    if given:
        raise typer.BadParameter(
            f"found {', '.join(given)} with {what}; only {', '.join(expected)} may stand there"
        )


def asked_mission(classes: str | None, data: Path, table: ClassTable) -> Mission:
    """The mission that --classes names: a list, @FILE, or without it all folders of ``data``."""
    if classes is None:
        from distillnet.images import class_folders

        return mission_of_folders(class_folders(data, table), table, str(data))
    if classes.startswith("@"):
        lines = read_lines(Path(classes[1:]), "the classes")
        return parse_mission([line.strip() for line in lines if line.strip()], table)
    return parse_mission(classes, table)
