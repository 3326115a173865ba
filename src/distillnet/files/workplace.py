"""The hidden folder beside a result in which it is made: locked while a process works there.

It is on the same file system as the result, so that they can change places, and its name follows
from the result's, so that whoever writes there next finds what a killed process left:

| in the workplace | is |
|---|---|
| ``lock`` | locked as long as its process lives |
| ``new-NUMBER`` | the folder being made; NUMBER is its inode. Is it another's, the two have changed places, and this is the old one |
| ``old`` | the old folder where the system cannot exchange; the new one was whole before it came |
| anything else | a file being made |
"""  # noqa: E501 - a table

import errno
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distillnet.errors import InputError
from distillnet.files.carry import put_away
from distillnet.files.disk import exchange, sync_folder
from distillnet.files.layout import Layout, is_workplace, workplace_name

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out
    fcntl = None  # type: ignore[assignment]

__all__ = ["begin_folder", "put_in_place", "workplace"]

_LOCK, _NEW, _OLD = "lock", "new-", "old"
_TRIES, _PAUSE_S = 20, 0.02  # another may be just looking, or leaving
_ABOVE = 3  # folders above a result that may be somebody's result themselves


@contextmanager
def workplace(path: Path, layout: Layout | None = None) -> Iterator[Path]:
    """The workplace of a result, for this process alone; gone when the block ends.

    What a killed process left there is finished or removed first.

    Args:
        layout: of a result that is a folder.

    Raises:
        InputError: another process writes the same result, one that it lies in, or one in it.
    """
    place = path.parent / workplace_name(path.name)
    handle = _lock(place)
    try:
        for other in _around(path):
            _check_idle(other)
        _clean(place, path, layout)
        yield place
    finally:
        try:
            with suppress(OSError):  # the next one does it
                _clean(place, path, layout)
            with suppress(OSError):  # another has locked it in the meantime
                (place / _LOCK).unlink(missing_ok=True)
                place.rmdir()
        finally:
            os.close(handle)


def begin_folder(place: Path) -> Path:
    """A new, empty folder in a workplace, named so that it is known whatever becomes of it."""
    made = place / "made"
    made.mkdir()
    return made.rename(place / f"{_NEW}{made.stat().st_ino}")


def put_in_place(new: Path, path: Path) -> None:
    """Let a folder from ``begin_folder`` take the place of ``path``, which may be a folder.

    At each moment one of both is there, where the system can exchange; elsewhere ``path`` is
    missing for a moment, and the next process that writes there restores it after a kill in that.
    """
    if not path.exists():
        new.rename(path)
    elif not exchange(new, path):
        old = new.parent / _OLD
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:
            if not path.exists():
                old.rename(path)
            raise
    sync_folder(path.parent)
    sync_folder(new.parent)


def _clean(place: Path, path: Path, layout: Layout | None) -> None:
    """Finish or remove all that lies in a workplace but the lock."""
    left = {entry.name: Path(entry.path) for entry in os.scandir(place) if entry.name != _LOCK}
    if _OLD in left and not path.exists():
        whole = [new for name, new in left.items() if name.startswith(_NEW) and _is_itself(new)]
        (whole[0] if whole else left[_OLD]).rename(path)
    for name, entry in left.items():
        if not os.path.lexists(entry):
            continue
        if not entry.is_dir() or entry.is_symlink():
            entry.unlink()
        elif name != _OLD and (not name.startswith(_NEW) or _is_itself(entry)):
            shutil.rmtree(entry)  # half made
        elif not path.exists():
            entry.rename(path)  # somebody has removed the new one
        elif layout is not None:
            put_away(entry, path, layout)


def _is_itself(new: Path) -> bool:
    return new.name == f"{_NEW}{new.stat().st_ino}"


def _around(path: Path) -> Iterable[Path]:
    """Workplaces of results that ``path`` may lie in, and of those in it."""
    for parent in list(path.parents)[:_ABOVE]:
        if parent.name:
            yield parent.parent / workplace_name(parent.name)
    if path.is_dir():
        for pattern in (".*", "*/.*"):
            yield from (found for found in path.glob(pattern) if is_workplace(found.name))


def _check_idle(place: Path) -> None:
    """InputError where another process works in another workplace."""
    if fcntl is None:
        return
    try:
        handle = os.open(place / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # nobody was ever there, or not as this user
        return
    try:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            if _try(handle, exclusive=False) or not _is_at(handle, place / _LOCK):
                return
        raise _busy(place)
    finally:
        os.close(handle)


def _lock(place: Path) -> int:
    """A handle on the lock of a workplace, which is made for that."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        with suppress(FileExistsError):
            place.mkdir()
        _check_ours(place)
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            handle = os.open(place / _LOCK, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # another is just leaving
            continue
        try:
            if _try(handle, exclusive=True) and _is_at(handle, place / _LOCK):
                _sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise _busy(place)


def _check_ours(place: Path) -> None:
    """InputError where a workplace is not a folder of this user's, or of whose folder it is in."""
    with suppress(FileNotFoundError):
        found = place.lstat()
        owners = {found.st_uid} if fcntl is None else {os.geteuid(), place.parent.stat().st_uid}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
            raise InputError(
                f"{place} is not a folder of this user's; expected none, or what an earlier run "
                "left there. Remove it or choose another --out"
            )


def _try(handle: int, *, exclusive: bool) -> bool:
    """Lock a file if nobody else holds it; whether that went well."""
    if fcntl is None:
        return True
    try:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return True  # a file system without locks
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether a path still is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Say in a lock who holds it."""
    who = {"process": os.getpid(), "machine": platform.node(), "since": time.time()}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(who).encode())


def _busy(place: Path) -> InputError:
    who = "another process"
    with suppress(OSError, ValueError, KeyError, TypeError):
        signed = json.loads((place / _LOCK).read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(float(signed["since"])))
        who = f"process {int(signed['process'])} on {str(signed['machine'])[:64]!r}, since {since},"
    return InputError(f"{who} is at work in {place}; wait until it is done or choose another --out")
