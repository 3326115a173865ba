"""The power goes at any moment: what was not synced is lost, and still nothing half-written.

The model is that of a journal: names change in order, and a crash may take back any number of the
last changes down to the last folder that was synced; a file that was not synced is empty.
"""

import copy
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from crashes import every_operation, hidden, texts
from distillnet.files import Layout, new_file, new_folder, workplace, writing

LAYOUT = Layout("m", ("m", "parts/*.bin"))
MINE = {"notes.txt": b"mine"}


@dataclass(frozen=True)
class _Names:
    """A folder at a moment: its inode, and what it holds; a file is its inode."""

    inode: int
    entries: "dict[str, _Names | int]"


@dataclass
class _Disk:
    """What a disk could hold after a power cut, while a block runs in ``root``."""

    root: Path
    content: dict[int, bytes] = field(default_factory=dict)  # that was synced
    moments: list[_Names] = field(default_factory=list)  # since a folder was synced last

    def __post_init__(self) -> None:
        for path in self.root.rglob("*"):
            if path.is_file():
                self.content[path.stat().st_ino] = path.read_bytes()
        self.moments.append(_names(self.root))

    def hear(self, operation: str) -> None:
        """Before each operation."""
        self.moments.append(_names(self.root))
        if operation.startswith("fsync"):
            handle = int(operation.split()[1])
            found = os.fstat(handle)
            if stat.S_ISDIR(found.st_mode):
                self.moments = self.moments[-1:]
            else:
                self.content[found.st_ino] = Path(f"/proc/self/fd/{handle}").read_bytes()

    def after_a_cut(self, where: Path) -> Iterator[Path]:
        """Each state that a cut now could leave, in a folder of its own."""
        for number, names in enumerate(self.moments):
            target = where / str(number)
            inodes: dict[int, int] = {}
            self._restore(names, target, inodes)
            for path in sorted(target.rglob("new-*")):  # named after what has another number here
                made = inodes.get(int(path.name.removeprefix("new-")), 0)
                path.rename(path.with_name(f"new-{made}"))
            yield target

    def is_new(self, names: _Names, known: set[str]) -> bool:
        """Whether this state is none of those that are known; it is from now on."""
        state = f"{names} {sorted(self.content)}"
        is_new = state not in known
        known.add(state)
        return is_new

    def _restore(self, names: _Names, target: Path, inodes: dict[int, int]) -> None:
        target.mkdir(parents=True)
        inodes[names.inode] = target.stat().st_ino
        for name, entry in names.entries.items():
            if isinstance(entry, _Names):
                self._restore(entry, target / name, inodes)
            else:
                (target / name).write_bytes(self.content.get(entry, b""))


def _names(folder: Path) -> _Names:
    return _Names(
        folder.stat().st_ino,
        {p.name: _names(p) if p.is_dir() else p.stat().st_ino for p in folder.iterdir()},
    )


def _files(text: str, parts: str) -> dict[str, bytes]:
    return {name: text.encode() for name in ("m", *(f"parts/{part}.bin" for part in parts))}


def _write(out: Path, text: str, parts: str) -> None:
    with new_folder(out, LAYOUT) as work:
        (work / "parts").mkdir()
        for name, content in _files(text, parts).items():
            (work / name).write_bytes(content)


def _write_with_power_cuts(earlier: bool, tmp_path: Path) -> int:
    """Look at all that a cut at any moment could leave; how many states that were."""
    root = tmp_path / "disk"
    root.mkdir()
    old: dict[str, bytes] = {}
    mine = MINE if earlier else {}
    if earlier:
        _write(root / "run", "old", "12")
        (root / "run" / "notes.txt").write_bytes(b"mine")
        old = {**_files("old", "12"), **mine}
    new, last = {**_files("new", "23"), **mine}, {**_files("last", "4"), **mine}
    model, moments = _Disk(root), []

    def hear(operation: str) -> None:
        model.hear(operation)
        moments.append(copy.deepcopy(model))

    with every_operation(hear):
        _write(root / "run", "new", "23")
        model.hear("done")
    looked_at: set[str] = set()
    for number, moment in enumerate([*moments, model]):
        moment.moments = [
            names for names in moment.moments if moment is model or moment.is_new(names, looked_at)
        ]
        for state in moment.after_a_cut(tmp_path / f"cut{number}"):
            found = texts(state / "run") if (state / "run").exists() else {}
            assert found in ([new] if moment is model else [old, new]), (number, found)
            _write(state / "run", "last", "4")
            assert texts(state) == {f"run/{name}": text for name, text in last.items()}
            assert hidden(state) == []
    return len(looked_at)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_folder(earlier: bool, tmp_path: Path) -> None:
    assert _write_with_power_cuts(earlier, tmp_path) > 30


@pytest.mark.parametrize(
    ("module", "name"),
    [(writing, "sync_tree"), (workplace, "sync_folder")],
)
def test_the_model_notices_what_is_not_synced(
    module: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, lambda folder: None)
    with pytest.raises(AssertionError):
        _write_with_power_cuts(True, tmp_path)


def test_a_file(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    (root / "net").write_text("old")
    model, moments = _Disk(root), []

    def hear(operation: str) -> None:
        model.hear(operation)
        moments.append(copy.deepcopy(model))

    with every_operation(hear):
        with new_file(root / "net") as work:
            work.write_text("new")
        model.hear("done")
    for number, moment in enumerate([*moments, model]):
        for state in moment.after_a_cut(tmp_path / f"cut{number}"):
            assert (state / "net").read_text() in (["new"] if moment is model else ["old", "new"])
