"""Commands on a small network and small pictures, and what they leave behind."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "COLLECT",
    "DISTILL",
    "N_CLASSES",
    "OPTIONS",
    "SEARCH",
    "SIDE",
    "Cli",
    "Outcome",
    "assert_refused",
    "distill_words",
    "drop_unfinished",
    "tree",
]

SIDE = 16
N_CLASSES = 4
OPTIONS = ("--input-size", str(SIDE), "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def distill_words(
    model: str = "net", data: str = "photos", classes: str = "0,1,2"
) -> tuple[str, ...]:
    spec = f"net.py:{model}"
    return ("distill", spec, *OPTIONS, "--data", data, "--classes", classes, "--out", "run")


DISTILL = distill_words()
# One that finds something in so small a network. From elsewhere noise looks different.
SEARCH = (*DISTILL, "--optimise", "macs", "--no-views")
COLLECT = ("collect", "net.py:net", *OPTIONS, "--data", "photos", "--out", "atlas")


def drop_unfinished(run: Path) -> bool:
    """Remove what an interrupted search kept, and folders that hold nothing else; was there any?"""
    kept = run / "unfinished"
    found = (kept / "search.json").exists()
    shutil.rmtree(kept, ignore_errors=True)
    for folder in (run, *run.parents):
        if not folder.exists() or any(folder.iterdir()):
            break
        folder.rmdir()
    return found


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def assert_refused(done: Outcome, status: int = 2) -> None:
    assert done.status == status, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
