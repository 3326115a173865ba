"""Taking the user's files along when a folder is replaced.

The folder that comes gets links to them before both change places, so that they are never missing
from the folder's name. The folder that goes is emptied file by file afterwards, and what somebody
put or saved there in the moment between is moved over first.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from distillnet.errors import InputError
from distillnet.files.layout import Layout, entries, is_folder, is_workplace

__all__ = ["carry_over", "check_folder", "put_away"]

_NAMED = 5  # in a message


def check_folder(folder: Path, layout: Layout, *, overwrite: bool) -> None:
    """Raise InputError where a result cannot take the place of what is in a folder.

    Args:
        overwrite: whether what others made of an earlier result goes, too.
    """
    layout = layout.within(folder)
    listed = list(entries(folder))
    derived = sorted(
        {path.split("/")[0] for path, entry in listed if _is_derived(layout, path, entry)}
    )
    if derived and not overwrite:
        names = [f"{name}/" if (folder / name).is_dir() else name for name in derived]
        raise InputError(
            f"{folder} holds what was made of the earlier result: {_some(names)}; it would not fit "
            "the new one. Choose another --out, move it away, or add --overwrite to remove it (and "
            "nothing else)"
        )
    for path, entry in listed:
        if layout.is_in_the_way(path, folder=is_folder(entry)):
            found, expected = ("a folder", "a file") if is_folder(entry) else ("a file", "a folder")
            if entry.is_symlink():
                found = "a link"
            raise InputError(
                f"{folder / path} is {found}; expected {expected} to replace. Move it away or "
                "choose another --out"
            )
        if is_folder(entry) and os.path.ismount(entry.path):
            raise InputError(
                f"{folder / path} is a mount point, which cannot be taken along when {folder} is "
                "replaced; choose another --out"
            )


def _is_derived(layout: Layout, path: str, entry: os.DirEntry[str]) -> bool:
    return not is_folder(entry) and layout.is_derived(path)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def carry_over(old: Path, new: Path, layout: Layout, *, overwrite: bool) -> None:
    """Link the user's files in ``old`` into ``new``; those that ``new`` has of itself stay.

    Links cost no space and show what is written to a file in the meantime. Where the system cannot
    link, files are copied.
    """
    new.chmod(old.stat().st_mode & 0o7777)
    layout = layout.within(old)
    for path, entry in entries(old):
        target = new / path
        if is_folder(entry):
            if not os.path.lexists(target) and not any(Path(entry.path).iterdir()):
                _make_folder(old, new, path)  # an empty one of the user's
        elif _goes(layout, path, overwrite=overwrite):
            continue
        elif not os.path.lexists(target):
            _make_folder(old, new, path.rpartition("/")[0])
            _link(Path(entry.path), target)
        elif layout.listed:
            raise InputError(
                f"{old / path} is none of the earlier result's files, but one of the new one's has "
                "the same name; move it away or choose another --out"
            )


def _goes(layout: Layout, path: str, *, overwrite: bool) -> bool:
    return layout.is_own(path) or (overwrite and layout.is_derived(path))


def _make_folder(old: Path, new: Path, path: str) -> None:
    """The folder ``path`` in ``new``, and those above it, as they are in ``old``."""
    if not path or (new / path).is_dir():
        return
    _make_folder(old, new, path.rpartition("/")[0])
    (new / path).mkdir()
    shutil.copystat(old / path, new / path)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # A file system without links, too many of them, or somebody else's file.
        if not source.is_symlink() and not source.is_file():
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def put_away(old: Path, new: Path, layout: Layout) -> None:
    """Remove ``old``, whose place ``new`` has taken; what is only there goes to ``new`` first.

    Markers go last: they tell whose the other files are, and to a process that goes on with this,
    too.
    """
    layout = layout.within(old)
    folders, last = [], []
    for path, entry in entries(old):
        if is_folder(entry):
            folders.append(Path(entry.path))
        elif path in layout.markers and (layout.is_own(path) or layout.is_derived(path)):
            last.append(Path(entry.path))
        elif layout.is_own(path) or _is_there(entry, new / path):
            Path(entry.path).unlink()
        elif not layout.is_derived(path):
            _make_folder(old, new, path.rpartition("/")[0])
            Path(entry.path).replace(new / path)
        else:
            Path(entry.path).unlink()
    for marker in last:
        marker.unlink()
    for folder in (*reversed(folders), old):
        for left in folder.iterdir():
            if is_workplace(left.name) and left.is_dir():
                shutil.rmtree(left)
        with suppress(OSError):  # somebody has just put a file there
            folder.rmdir()


def _is_there(entry: os.DirEntry[str], target: Path) -> bool:
    """Whether ``target`` is the same file, a copy of it, or was saved after it."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return False
    mine = entry.stat(follow_symlinks=False)
    # A folder in the place of the user's file cannot be: ``check_folder`` and links see to that.
    return (mine.st_ino, mine.st_dev) == (found.st_ino, found.st_dev) or (
        mine.st_mtime_ns <= found.st_mtime_ns
    )
