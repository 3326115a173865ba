"""Processes that are killed at any file operation of their own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distillnet.files import disk, workplace

__all__ = ["every_operation", "hidden", "killed_at", "texts"]

_CHANGES = frozenset(
    ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
) | {"os.chmod", "os.utime"}
_listeners: list[Callable[[str], None]] = []
_hooked: list[bool] = []  # a hook cannot be taken away again


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _listeners:
        return
    changes = event in _CHANGES
    if event == "open" and isinstance(arguments[2], int):
        changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes:
        for listener in list(_listeners):
            listener(f"{event} {arguments[0]!r}")


@contextmanager
def every_operation(listener: Callable[[str], None]) -> Iterator[None]:
    """Call ``listener`` before every operation of this process that changes or syncs files."""
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    sync, exchange = os.fsync, disk.exchange

    def heard_sync(handle: int) -> None:
        listener(f"fsync {handle}")
        sync(handle)

    def heard_exchange(one: Path, other: Path) -> bool:
        listener(f"exchange {one} {other}")
        return exchange(one, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", heard_sync)
        if workplace.exchange is exchange:  # else a test has another already
            patch.setattr(workplace, "exchange", heard_exchange)
        _listeners.append(listener)
        try:
            yield
        finally:
            _listeners.remove(listener)


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Do it in a process that is killed before its file operation of this number.

    False where it was done before so many operations.
    """
    child = os.fork()
    if child == 0:
        left = number

        def kill(_: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        status = 1
        try:
            with every_operation(kill):
                action()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed"
    return False


def texts(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def hidden(folder: Path) -> list[str]:
    """The names below a folder that begin with a dot."""
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".")]
