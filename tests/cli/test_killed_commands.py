"""Commands killed at any file operation: the old result or the new one, and nothing left over.

What takes long in them is done once, and its files are copied from then on.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from crashes import hidden, killed_at, texts
from distillnet.cli import main
from distillnet.files import Layout
from distillnet.files.results import ATLAS, C_FOLDER, DEMO, RUN
from invocations import COLLECT, DISTILL, OPTIONS

MINE = {"notes.txt": b"mine", "atlas/notes.txt": b"mine", "front/00/notes.txt": b"mine"}
# Operations from kill to kill; files/test_kills.py leaves none out. 1: neither here, in minutes.
_EVERY = int(os.environ.get("DISTILLNET_KILL_EVERY", "7"))


@dataclass(frozen=True)
class _Command:
    """A command, what it writes, and the functions that do the work.

    The last of them gets the place to write to; ``before`` is what makes its input.
    """

    words: tuple[str, ...]
    out: str
    layout: Layout | None
    work: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()


def _collect(data: str, out: str) -> tuple[str, ...]:
    return ("collect", "net.py:net", *OPTIONS, "--data", data, "--out", out)


COMMANDS = {
    "distill": _Command(DISTILL, "run", RUN, ("job.distill.distill", "job.runs.write_run")),
    "collect": _Command(COLLECT, "atlas", ATLAS, ("missions.collecting.collect_model",)),
    "demo": _Command(
        ("demo", "--out", "demo"), "demo", DEMO, ("cli.main.print_run", "job.demo.run_demo")
    ),
    "export --format c": _Command(
        ("export", "run", "--format", "c"), "run/c", C_FOLDER, ("deploy.export_c",)
    ),
    "export": _Command(
        ("export", "run", "--format", "pt2"), "run/export.pt2", None, ("deploy.export",)
    ),
    "merge": _Command(
        ("merge", "one", "two", "--out", "both"), "both", ATLAS, ("missions.merging.merge",),
        (_collect("many", "one"), _collect("photos/val", "two")),
    ),
    "retarget": _Command(
        ("retarget", "one", "--classes", "0,2", "--model", "net.py:net", "--target-macs", "1.2",
         "--out", "cut"),
        "cut", RUN, ("missions.retargeting.retarget", "job.runs.write_run"),
        (_collect("many", "one"),),
    ),
    "pack": _Command(
        ("pack", "net.py:net", *OPTIONS, "--data", "photos", "--max-loss", "100",
         "--out", "net.dnp"),
        "net.dnp", None, ("deploy.packing.pack",),
    ),
    "mission pack": _Command(
        ("mission", "pack", "run", "--key", "key", "--serial", "1", "--base", "base", "--model",
         "net.py:net", "--out", "a.mission"),
        "a.mission", None, ("missions.packages.shared_weights", "missions.packages.pack_mission"),
        (("mission", "keys", "--out", "key"),),
    ),
}  # fmt: skip


def _run(words: tuple[str, ...]) -> None:
    """A command in this process, without a word."""
    quiet = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        patch.setattr(sys, "argv", ["distillnet", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert not leaving.value.code, quiet.getvalue()


def _files(out: Path) -> dict[str, bytes]:
    """What stands under a name: a file, or those of a folder but for what is hidden."""
    if out.is_file():
        return {"": out.read_bytes()}
    found = texts(out) if out.exists() else {}
    return {path: text for path, text in found.items() if not path.startswith(".")}


def _place(name: str) -> tuple[ModuleType, str]:
    """The module that a function is in, and its name there."""
    module, _, function = f"distillnet.{name}".rpartition(".")
    return importlib.import_module(module), function


class _Copied:
    """A command whose work is copied from what it did the first time."""

    def __init__(self, command: _Command, patch: pytest.MonkeyPatch, demo: Path) -> None:
        self.command, self.generation = command, b""
        self.returned: dict[str, object] = {}
        if command.layout is DEMO:  # takes long even once
            more = dict.fromkeys(("weights.safetensors", "data/train/3/0001.png"), b"")
            self.files = texts(demo) | more
            self.files[DEMO.marker] = json.dumps({"files": sorted(self.files)}).encode()
        else:
            with pytest.MonkeyPatch.context() as recording:
                for name in command.work:
                    module, function = _place(name)
                    recording.setattr(
                        module, function, self._recorded(name, getattr(module, function))
                    )
                _run(command.words)
            self.files = _files(Path(command.out))
        for name in command.work:
            patch.setattr(*_place(name), self._replayed(name))

    def _recorded(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self.returned[name] = function(*args, **options)
            return self.returned[name]

        return call

    def _replayed(self, name: str) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            if name == self.command.work[-1]:
                place = next(a for a in args if isinstance(a, Path) and ".distillnet" in str(a))
                for path, text in self.result(self.generation).items():
                    target = place / path if path else place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(text)
            return self.returned.get(name)

        return call

    def result(self, generation: bytes) -> dict[str, bytes]:
        """The files of a generation; a new one lacks some of what the old ones have."""
        names = [name for name in self.files if generation == b"old" or "2.s" not in name]
        files = {name: self.files[name] + generation for name in names}
        layout = self.command.layout
        if layout and layout.listed:  # its list has to stay one
            files[layout.marker] = self.files[layout.marker] + b" " * (generation == b"new")
        return files

    def make(self, generation: bytes) -> None:
        self.generation = generation
        _run(self.command.words)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_operation(
    name: str,
    home: Path,
    run_folder: Path,
    made_once: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    command = COMMANDS[name]
    if "run" not in command.words and not command.out.startswith("run/"):
        shutil.rmtree(run_folder)
    for words in command.before:
        _run(words)
    copied = _Copied(command, monkeypatch, made_once)
    out, mine = home / command.out, MINE if command.layout else {}
    copied.make(b"old")
    for path, text in mine.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(text)
    old, new = ({**copied.result(text), **mine} for text in (b"old", b"new"))
    seen = []
    number, killed = 0, True
    while killed:
        copied.generation = b"new"
        killed = killed_at(number, lambda: _run(command.words))
        found = _files(out)
        assert found in (old, new), number
        seen.append(found == new)
        copied.make(b"old")
        assert _files(out) == old, number
        assert [path for path in hidden(home) if "__pycache__" not in path] == []
        number += _EVERY
    record_property("kills", len(seen) - 1)  # for --junitxml
    assert seen == sorted(seen)  # the old ones first
    assert set(seen) == {False, True}
