"""What --out may hold: the user's files stay, exports of an earlier network are named first."""

import os
from pathlib import Path

import pytest

from crashes import hidden, texts
from distillnet.files import Layout
from distillnet.files.results import ATLAS, C_FOLDER, DEMO, RUN
from invocations import COLLECT, DISTILL, Cli, assert_refused, tree


@pytest.mark.parametrize(
    ("words", "out", "layout"),
    [
        (DISTILL, "run", RUN),
        (COLLECT, "atlas", ATLAS),
        (("export", "run", "--format", "c"), "run/c", C_FOLDER),
        pytest.param(("demo", "--out", "demo"), "demo", DEMO, marks=pytest.mark.exhaustive),
    ],
)
def test_each_command_declares_what_it_writes(
    words: tuple[str, ...], out: str, layout: Layout, run_folder: Path, cli: Cli, home: Path
) -> None:
    """So that it goes when the command is run again, and nothing else does."""
    assert cli(*words).status == 0
    written = texts(home / out)
    assert [name for name in written if not layout.is_own(name)] == []
    assert layout.marker in written


def test_exports_are_declared_too(run_folder: Path, cli: Cli) -> None:
    for words in (("--format", "pt2"), ("--format", "onnx"), ("--format", "c")):
        assert cli("export", "run", *words).status == 0
    names = [name for name in texts(run_folder) if not RUN.is_own(name)]
    assert {name.split("/")[0] for name in names} == {"export.pt2", "model.onnx", "c"}
    assert all(RUN.is_derived(name) for name in names)


def test_a_new_run_keeps_notes_and_refuses_exports(run_folder: Path, cli: Cli, home: Path) -> None:
    mine = {"notes.txt": b"1", "front/plot.png": b"2", "c/main.c": b"3", "net.onnx": b"4"}
    exports = {"model.onnx": b"", "bench.json": b"", "report.html": b"", "c/model.c": b""}
    for name, text in (mine | exports).items():
        (run_folder / name).parent.mkdir(exist_ok=True)
        (run_folder / name).write_bytes(text)
    before = tree(home)
    for words in (DISTILL, ("distill", "--from", "run", "--max-loss", "1", "--out", "run")):
        done = cli(*words)
        assert_refused(done)
    done = cli(*DISTILL)
    assert_refused(done)
    assert "bench.json, c/, model.onnx, report.html" in done.err
    assert "--overwrite" in done.err
    assert tree(home) == before
    assert cli(*DISTILL, "--overwrite").status == 0
    left = texts(run_folder)
    assert {name: text for name, text in left.items() if not RUN.is_own(name)} == mine
    assert not hidden(run_folder)
    assert cli(*DISTILL).status == 0  # nothing stands in the way any more
    assert texts(run_folder).keys() == left.keys()


@pytest.mark.parametrize("words", [DISTILL, COLLECT, ("demo",)], ids=lambda words: words[0])
@pytest.mark.parametrize(("kind", "told"), [("file", "a file"), ("pipe", "a named pipe")])
def test_an_out_that_is_no_folder(
    words: tuple[str, ...], kind: str, told: str, cli: Cli, home: Path
) -> None:
    (home / "x").write_text("") if kind == "file" else os.mkfifo(home / "x")
    done = cli(*words, "--out", "x")
    assert_refused(done)
    assert f"x is {told}; expected a folder to write" in done.err
    assert "/dev/null is a device" in cli(*words, "--out", "/dev/null").err


def test_an_out_that_is_no_file(run_folder: Path, cli: Cli) -> None:
    os.mkfifo(run_folder / "pipe")
    for words in (("--out", "run/pipe"), ("--out", "/dev/null")):
        done = cli("export", "run", "--format", "pt2", *words)
        assert_refused(done)
        assert "expected a file to write" in done.err
