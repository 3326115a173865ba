"""A process killed at any file operation: the old result or the new one, and nothing left over."""

import json
import os
import signal
from pathlib import Path

import pytest

from crashes import hidden, killed_at, texts
from distillnet.files import Layout, new_file, new_folder, workplace

LAYOUT = Layout("m", ("m", "parts/*.bin"), ("x.onnx",))
LISTING = Layout("m", ("m",), ("x.onnx",), listed=("parts/*.bin",))
MINE = {"notes.txt": b"mine", "parts/mine.txt": b"mine"}


def _result(text: str, parts: str, layout: Layout = LAYOUT) -> dict[str, bytes]:
    files = [f"parts/{part}.bin" for part in parts]
    marker = json.dumps({"files": files, "text": text}) if layout.listed else text
    return {"m": marker.encode(), **{name: text.encode() for name in files}}


def _write(out: Path, text: str, parts: str, layout: Layout = LAYOUT) -> None:
    with new_folder(out, layout, overwrite=True) as work:
        (work / "parts").mkdir()
        for name, content in _result(text, parts, layout).items():
            (work / name).write_bytes(content)


@pytest.mark.parametrize("layout", [LAYOUT, LISTING], ids=["patterns", "listed"])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("exchanges", [False, True])
def test_a_folder(
    layout: Layout,
    earlier: bool,
    exchanges: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exchanges:
        monkeypatch.setattr(workplace, "exchange", lambda one, other: False)
    old, new, last = (
        _result(text, parts, layout)
        for text, parts in (("old", "12"), ("new", "23"), ("last", "4"))
    )
    mine = MINE | ({"parts/9.bin": b"mine"} if layout.listed else {}) if earlier else {}
    seen = set()
    number, killed = 0, True
    while killed:
        out = tmp_path / str(number) / "run"
        out.parent.mkdir()
        if earlier:
            _write(out, "old", "12", layout)
            for name, content in {**mine, "x.onnx": b"of the old"}.items():
                (out / name).write_bytes(content)
        killed = killed_at(number, lambda out=out: _write(out, "new", "23", layout))
        before = {**old, **mine, "x.onnx": b"of the old"} if earlier else {}
        found = {name: text for name, text in texts(out.parent).items() if name.startswith("run/")}
        states = {"old": before, "new": {**new, **mine}}
        if not exchanges:
            states["none"] = {}
        state = {
            name
            for name, files in states.items()
            if found == {f"run/{path}": content for path, content in files.items()}
        }
        assert state, (number, found)
        seen |= state if not earlier else state - {"none"} or {"none"}
        _write(out, "last", "4", layout)
        assert texts(out.parent) == {f"run/{n}": t for n, t in {**last, **mine}.items()}, number
        assert hidden(tmp_path) == []
        number += 1
    assert {"old", "new"} <= seen
    assert number > 20


def test_what_was_saved_in_the_last_moment_outlives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    _write(out, "old", "1")
    (out / "notes.txt").write_text("1")
    exchange = workplace.exchange

    def late(one: Path, other: Path) -> bool:
        (out / "saving").write_text("2")
        (out / "saving").replace(out / "notes.txt")
        done = exchange(one, other)
        os.kill(os.getpid(), signal.SIGKILL)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(workplace, "exchange", late)
        assert killed_at(10**6, lambda: _write(out, "new", "1"))
    assert (out / "m").read_text() == "new"
    _write(out, "last", "1")
    assert texts(tmp_path) == {"run/notes.txt": b"2", "run/m": b"last", "run/parts/1.bin": b"last"}
    assert hidden(tmp_path) == []


def test_a_file(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"

    def write(text: str) -> None:
        with new_file(out) as work:
            work.write_text(text)

    seen = set()
    number, killed = 0, True
    while killed:
        write("old")
        killed = killed_at(number, lambda: write("new"))
        seen.add(out.read_text())
        write("last")
        assert texts(tmp_path) == {"net.onnx": b"last"}
        assert hidden(tmp_path) == []
        number += 1
    assert seen == {"old", "new"}


def test_what_a_killed_export_left_goes_with_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    _write(out, "old", "1")

    def export() -> None:
        with new_file(out / "x.onnx") as work:
            work.write_text("half")

    number = 0
    while not hidden(out):
        assert killed_at(number, export)
        number += 1
    _write(out, "new", "1")
    assert hidden(tmp_path) == []
    assert texts(out) == _result("new", "1")
