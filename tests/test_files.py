"""Nothing half-written under a final name, and nothing of the user's overwritten."""

import os
import stat
from pathlib import Path

import pytest

from distillnet.errors import InputError
from distillnet.files import check_writable, new_file, new_folder


def _tree(path: Path) -> dict[str, str]:
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def test_a_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    with new_folder(out, "result.json") as work:
        (work / "result.json").write_text("1")
        assert not out.exists()
    assert _tree(tmp_path) == {"a/run/result.json": "1"}
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_folder_changes_nothing(
    error: type[BaseException], earlier: bool, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if earlier:
        out.mkdir()
        (out / "result.json").write_text("old")
    before = _tree(tmp_path)
    with pytest.raises(error), new_folder(out, "result.json") as work:  # noqa: PT012
        (work / "result.json").write_text("half")
        raise error
    assert _tree(tmp_path) == before
    assert out.exists() == earlier
    assert len(list(tmp_path.iterdir())) == int(earlier)


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for text in ("first", "second"):
        with new_folder(out, "result.json") as work:
            (work / "result.json").write_text(text)
            (work / text).write_text("")
    assert _tree(tmp_path) == {"run/result.json": "second", "run/second": ""}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_earlier_result_survives_an_interrupt_of_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with new_folder(out, "m") as work:
        (work / "m").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target) == out and self.parent == tmp_path:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(out, "m") as work:
        (work / "m").write_text("new")
    assert _tree(tmp_path) == {"run/m": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", "m") as work:
        (tmp_path / "run").mkdir()
        (work / "m").write_text("")
    assert _tree(tmp_path) == {"run/m": ""}


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds other files"), new_folder(tmp_path, "m"):
        pass
    assert _tree(tmp_path) == {"thesis.tex": "mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_new_file(error: type[BaseException] | None, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "net.pt2"
    out.parent.mkdir()
    out.write_text("old")
    try:
        with new_file(out) as work:
            work.write_text("new")
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert _tree(tmp_path) == {"deep/net.pt2": "old" if error else "new"}


def test_wrong_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    cases = [
        (file, "m", "is a file"),
        (tmp_path, None, "is a folder"),
        (file / "run", "m", "cannot write"),
        (file / "deep" / "net.pt2", None, "cannot write"),
        (tmp_path / ("x" * 300), "m", "cannot write"),
    ]
    for path, marker, message in cases:
        with pytest.raises(InputError, match=message):
            check_writable(path, marker)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(InputError, match="cannot write"):
        check_writable(tmp_path / "new" / "run", "m")
