"""What the system does at once, and what it takes to be sure that it is done."""

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["exchange", "sync_file", "sync_folder", "sync_folders", "sync_tree"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# Where a kernel or a file system cannot exchange. EXDEV is overlayfs's answer for folders that lie
# in a lower layer.
_CANNOT = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EXDEV))
_FEW, _AT_ONCE = 16, 8  # files
_CANNOT_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR))


@cache
def _renameat2() -> Any:
    """The C library's function; None where there is none (it is Linux's)."""
    try:
        function: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    number, text = ctypes.c_int, ctypes.c_char_p
    function.argtypes = (number, text, number, text, ctypes.c_uint)
    return function


def exchange(one: Path, other: Path) -> bool:
    """Let two existing paths change names in one step, which nobody can see half done.

    False where the system cannot do that; then nothing has changed.
    """
    function = _renameat2()
    if function is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if function(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system has a way to ask that."""
    with suppress(PermissionError):  # one that may be written but not read
        try:
            sync_file(path)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise


def sync_tree(folder: Path) -> None:
    """Wait until all files below a folder are on the disk, and their names."""
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    if len(files) <= _FEW:
        for path in files:
            sync_file(path)
    else:  # the disk takes what comes at once in one go: 900 files in 0.1 s instead of 5
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(sync_file, files):
                pass
    sync_folders(folder)


def sync_folders(folder: Path) -> None:
    """Wait until all names below a folder are on the disk."""
    for place, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(place))
