"""Nothing half-written under a final name, and nothing of the user's overwritten."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from crashes import hidden
from distillnet.errors import InputError
from distillnet.files import Layout, check_writable, new_file, new_folder, workplace

LAYOUT = Layout("m", ("m", "parts/*.bin", "first", "second"), ("x.onnx", "c/*.c"))


def _tree(path: Path) -> dict[str, str]:
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def _write(out: Path, text: str = "new", **options: bool) -> None:
    with new_folder(out, LAYOUT, **options) as work:
        (work / "m").write_text(text)


def _make(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(params=["exchange", "no exchange"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a system that can let two folders change places, and with one that cannot."""
    if request.param == "no exchange":
        monkeypatch.setattr(workplace, "exchange", lambda one, other: False)


def test_a_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    with new_folder(out, LAYOUT) as work:
        (work / "m").write_text("1")
        assert not out.exists()
    assert _tree(tmp_path) == {"a/run/m": "1"}
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_the_users(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        _write(tmp_path / "run")
        with new_file(tmp_path / "file") as work:
            work.write_text("")
    finally:
        os.umask(before)
    for path, mode in ((tmp_path / "run", 0o777), (tmp_path / "file", 0o666)):
        assert stat.S_IMODE(path.stat().st_mode) == mode & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_folder_changes_nothing(
    error: type[BaseException], earlier: bool, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if earlier:
        _make(out, {"m": "old"})
    before = _tree(tmp_path)
    with pytest.raises(error), new_folder(out, LAYOUT) as work:  # noqa: PT012
        (work / "m").write_text("half")
        raise error
    assert _tree(tmp_path) == before
    assert out.exists() == earlier
    assert len(list(tmp_path.iterdir())) == int(earlier)


@pytest.mark.usefixtures("_either_way")
def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for text in ("first", "second"):
        with new_folder(out, LAYOUT) as work:
            (work / "m").write_text(text)
            (work / text).write_text("")
            (work / "parts").mkdir()
            (work / "parts" / f"{text}.bin").write_text("")
    assert _tree(tmp_path) == {"run/m": "second", "run/second": "", "run/parts/second.bin": ""}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("links", [True, False])
def test_the_users_files_stay(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the file system has hard links."""
    out = tmp_path / "run"
    mine = {"notes.txt": "1", "parts/notes": "2", "plots/deep/a.png": "3", "m.old": "4"}
    _make(out, mine | {"m": "old", "parts/1.bin": "old"})
    (out / "empty").mkdir()
    (out / "link").symlink_to("notes.txt")
    (out / "broken").symlink_to("nowhere")
    os.mkfifo(out / "pipe") if links else None
    (out / "plots").chmod(0o711)
    out.chmod(0o750)
    inode = (out / "notes.txt").stat().st_ino

    def unable(*args: object, **options: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", unable)
    _write(out)
    (out / "pipe").unlink(missing_ok=True)
    assert _tree(out) == mine | {"m": "new", "link": "1"}
    assert (out / "link").is_symlink()
    assert (out / "broken").is_symlink()
    assert (out / "empty").is_dir()
    assert stat.S_IMODE((out / "plots").stat().st_mode) == 0o711
    assert stat.S_IMODE(out.stat().st_mode) == 0o750
    assert (out / "notes.txt").stat().st_nlink == 1
    assert not links or (out / "notes.txt").stat().st_ino == inode
    assert hidden(tmp_path) == []


def _saved_anew(old: Path) -> None:  # as editors do
    (old / "saving").write_text("2")
    (old / "saving").replace(old / "notes.txt")


def _written_on(old: Path) -> None:
    (old / "notes.txt").write_text("2")


def _added(old: Path) -> None:
    _make(old, {"late/notes.txt": "2"})


@pytest.mark.parametrize("change", [_saved_anew, _written_on, _added])
def test_what_is_saved_in_the_last_moment_stays(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the links to the user's files and the exchange."""
    out = tmp_path / "run"
    _make(out, {"m": "old", "notes.txt": "1"})
    exchange = workplace.exchange

    def late(one: Path, other: Path) -> bool:
        change(out)
        return exchange(one, other)

    monkeypatch.setattr(workplace, "exchange", late)
    _write(out)
    name = "late/notes.txt" if change is _added else "notes.txt"
    assert (out / name).read_text() == "2"
    assert (out / "m").read_text() == "new"
    assert hidden(tmp_path) == []


def test_what_was_made_of_an_earlier_result_is_named(tmp_path: Path) -> None:
    out = tmp_path / "run"
    mine = {"c/notes": "mine", "y.onnx": "mine"}
    _make(out, mine | {"m": "old", "x.onnx": "", "c/model.c": ""})
    before = _tree(out)
    with pytest.raises(InputError, match=r"c/, x\.onnx; .*--overwrite"):
        _write(out)
    assert _tree(out) == before
    _write(out, overwrite=True)
    assert _tree(out) == mine | {"m": "new"}
    _write(out)  # what is the user's in c/ is no export


def test_an_error_of_the_exchange_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    _write(out, "old")
    monkeypatch.setattr(workplace, "exchange", lambda one, other: False)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name != "old":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write(out)
    assert _tree(tmp_path) == {"run/m": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", LAYOUT) as work:
        (tmp_path / "run").mkdir()
        (work / "m").write_text("")
    assert _tree(tmp_path) == {"run/m": ""}


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        _write(tmp_path)
    assert _tree(tmp_path) == {"thesis.tex": "mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_new_file(error: type[BaseException] | None, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "net.pt2"
    _make(tmp_path, {"deep/net.pt2": "old"})
    try:
        with new_file(out) as work:
            assert work.suffix == ".pt2"
            work.write_text("new")
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert _tree(tmp_path) == {"deep/net.pt2": "old" if error else "new"}
    assert hidden(tmp_path) == []


def test_long_names_have_places_of_their_own(tmp_path: Path) -> None:
    """Two that begin alike are written at once."""
    names = ["ü" * 120 + end for end in "ab"]
    with new_folder(tmp_path / names[0], LAYOUT) as one, new_file(tmp_path / names[1]) as two:
        (one / "m").write_text("1")
        two.write_text("2")
    assert _tree(tmp_path) == {f"{names[0]}/m": "1", names[1]: "2"}


def test_wrong_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as at:
        at.bind("socket")
    _make(tmp_path, {"one/m": "", "one/parts": "", "two/m": "", "two/first/x": ""})
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "m").write_text("")
    (tmp_path / "three" / "parts").symlink_to(tmp_path / "one")
    cases = [
        (file, LAYOUT, "is a file; expected a folder"),
        (tmp_path, None, "is a folder; expected a file"),
        (tmp_path / "pipe", LAYOUT, "is a named pipe; expected a folder"),
        (tmp_path / "link", None, "is a named pipe; expected a file"),
        (tmp_path / "socket", None, "is a socket; expected a file"),
        (Path("/dev/null"), None, "is a device; expected a file"),
        (Path("/dev/null"), LAYOUT, "is a device; expected a folder"),
        (file / "run", LAYOUT, "cannot write"),
        (file / "deep" / "net.pt2", None, "cannot write"),
        (tmp_path / ("x" * 300), LAYOUT, "cannot write"),
        (tmp_path / "one", LAYOUT, "parts is a file; expected a folder"),
        (tmp_path / "two", LAYOUT, "first is a folder; expected a file"),
        (tmp_path / "three", LAYOUT, "parts is a link; expected a folder"),
    ]
    for path, layout, message in cases:
        with pytest.raises(InputError, match=message):
            check_writable(path, layout)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(InputError, match="cannot write"):
        check_writable(tmp_path / "new" / "run", LAYOUT)


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize("listing", ['{"files": ["../notes", "*.c", "a.c"], "more": 1}', "[]", "{"])
def test_names_that_users_have_too_are_ours_where_a_marker_lists_them(
    listing: str, tmp_path: Path
) -> None:
    layout = Layout("m", ("m",), listed=("*.c",))
    out = tmp_path / "out"
    before = {"m": listing, "a.c": "ours", "b.c": "the user's"}
    _make(tmp_path, {"notes": "the user's"})
    _make(out, before)
    if "files" not in listing:
        with pytest.raises(InputError, match="holds other files"), new_folder(out, layout):
            pass
        assert _tree(out) == before
        return
    with new_folder(out, layout) as work:
        (work / "m").write_text('{"files": []}')
    assert _tree(tmp_path) == {"out/m": '{"files": []}', "out/b.c": "the user's"} | {
        "notes": "the user's"
    }
