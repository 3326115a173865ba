"""Reading files that may be anything: a pipe that never ends, a device, more than memory holds."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_regular", "read_regular"]

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CHUNK = 2**20


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or what a link leads to, for reading.

    Raises:
        OSError: there is none, or it is something else, such as a pipe, which would be waited for.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write; regular files ignore it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if kind != stat.S_IFREG:
            found = _KINDS.get(kind, "no file")
            raise OSError(errno.EINVAL, f"{found}, expected a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, at_most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        at_most: bytes; a file that is larger, or grows beyond, is not read.

    Raises:
        OSError: as ``open_regular``, and where there are more.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, at_most) + 1)  # one more tells whether it grows
        if len(data) > at_most or size > at_most:
            found = max(size, len(data))
            raise OSError(errno.EINVAL, f"{found:,} bytes, at most {at_most:,} are read", str(path))
        return data
