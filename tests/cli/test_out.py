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
        ((*COLLECT, "--noise", "8"), "atlas", ATLAS),
        (("export", "run", "--format", "c"), "run/c", C_FOLDER),
        pytest.param(("demo", "--out", "demo"), "demo", DEMO, marks=pytest.mark.exhaustive),
    ],
)
def test_each_command_declares_what_it_writes(
    words: tuple[str, ...], out: str, layout: Layout, run_folder: Path, cli: Cli, home: Path
) -> None:
    """So that it goes when the command is run again, and nothing else does."""
    assert cli(*words).status == 0
    written, layout = texts(home / out), layout.within(home / out)
    assert [name for name in written if not layout.is_own(name)] == []
    assert layout.marker in written


def test_exports_are_declared_too(run_folder: Path, cli: Cli) -> None:
    for words in (("--format", "pt2"), ("--format", "onnx"), ("--format", "c")):
        assert cli("export", "run", *words).status == 0
    layout = RUN.within(run_folder)
    names = [name for name in texts(run_folder) if not layout.is_own(name)]
    assert {name.split("/")[0] for name in names} == {"export.pt2", "model.onnx", "c"}
    assert all(layout.is_derived(name) for name in names)


def test_a_new_run_keeps_notes_and_refuses_exports(run_folder: Path, cli: Cli, home: Path) -> None:
    mine = {"notes.txt": b"1", "front/plot.png": b"2", "c/src/main.c": b"3", "net.onnx": b"4"}
    exports = {"model.onnx": b"", "bench.json": b"", "report.html": b"", "c/model.c": b""}
    exports |= {"c/about.json": b'{"files": ["model.c", "src/net.c"]}', "c/src/net.c": b""}
    for name, text in (mine | exports).items():
        (run_folder / name).parent.mkdir(exist_ok=True, parents=True)
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


def test_c_among_a_firmwares_own_files(run_folder: Path, cli: Cli, home: Path) -> None:
    """Names that a project of one's own has as well: only what an export listed is replaced."""
    mine = {"src/main.c": b"1", "missions/mars.c": b"2", "net.mk": b"3"}
    firmware = {"model.h": b"mine", "README.md": b"mine", "Makefile": b"mine", **mine}
    for name, text in firmware.items():
        (home / "firmware" / name).parent.mkdir(exist_ok=True, parents=True)
        (home / "firmware" / name).write_bytes(text)
    export = ("export", "run", "--format", "c", "--out")
    done = cli(*export, "firmware")
    assert_refused(done)
    assert texts(home / "firmware") == firmware
    assert cli(*export, "c").status == 0
    written = texts(home / "c")
    for name, text in mine.items():
        (home / "c" / name).write_bytes(text)
    assert cli(*export, "c", "--prefix", "net").status == 0
    left = texts(home / "c")
    assert {name: left.get(name) for name in mine} == mine
    assert "src/net.h" in left
    assert not [name for name in written if name.startswith("src/") and name in left]
    (home / "c/src/model.h").write_bytes(b"mine")  # where the next export has one
    done = cli(*export, "c")
    assert_refused(done)
    assert "src/model.h is none of the earlier result's files" in done.err
    assert texts(home / "c") == left | {"src/model.h": b"mine"}


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
