"""Several processes that write the same result: one works, the others are told so."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from crashes import hidden, texts
from distillnet.errors import InputError
from distillnet.files import Layout, new_file, new_folder

LAYOUT = Layout("m", ("m",), ("x.onnx",))
_ROUNDS = 400


def _start(action: Callable[[], object]) -> int:
    """A process that leaves with 0 when it is done."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def _write(out: Path, name: str) -> None:
    with new_folder(out, LAYOUT) as work:
        before = (out / "m").read_text() if out.exists() else ""
        (work / "m").write_text(f"{before}{name}")


@pytest.mark.slow
def test_two_writers(tmp_path: Path) -> None:
    """Whoever is done is in the result, or was seen as an earlier result by who came after."""
    places = [tmp_path / str(number) / "run" for number in range(_ROUNDS)]
    for out in places:
        out.parent.mkdir()
    ends = socket.socketpair()

    def write_all(name: str, end: socket.socket) -> None:
        for out in places:
            end.send(b"?")  # both begin at once
            end.recv(1)
            (out.parent / name).write_text("refused")
            with suppress(InputError):
                _write(out, name)
                (out.parent / name).write_text("done")

    children = [_start(partial(write_all, name, end)) for name, end in zip("ab", ends, strict=True)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    for out in places:
        done = [name for name in "ab" if (out.parent / name).read_text() == "done"]
        assert sorted((out / "m").read_text()) == done != []
        assert texts(out) == {"m": (out / "m").read_bytes()}
        assert hidden(out.parent) == []


def test_a_reader_never_finds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    _write(out, "a")

    def many() -> None:
        for _ in range(100):
            _write(out, "a")

    child = _start(many)
    looks = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert re.fullmatch("a+", (out / "m").read_text())
        looks += 1
    assert looks > 100
    assert (out / "m").read_text() == 101 * "a"


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        new_folder(tmp_path / "run", LAYOUT) as work,
        pytest.raises(InputError, match=rf"process {os.getpid()} .*wait until it is done"),
        new_folder(tmp_path / "run", LAYOUT),
    ):
        raise AssertionError
    assert not work.exists()


@pytest.mark.parametrize("first", ["run", "export"])
def test_an_export_and_a_new_run_keep_out_of_each_others_way(first: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _write(out, "a")
    run, export = new_folder(out, LAYOUT), new_file(out / "x.onnx")
    one, other = (run, export) if first == "run" else (export, run)
    with one as work:
        with pytest.raises(InputError, match="is at work in"), other:
            raise AssertionError
        (work / "m" if first == "run" else work).write_text("b")
    assert hidden(tmp_path) == []


def test_a_workplace_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".run.distillnet").symlink_to("elsewhere")
    with pytest.raises(InputError, match="not a folder of this user's"):
        _write(tmp_path / "run", "a")
    assert texts(tmp_path / "elsewhere") == {}
