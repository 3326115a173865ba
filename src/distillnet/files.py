"""Writing so that nothing half-written ever stands under a final name."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from distillnet.errors import InputError

if TYPE_CHECKING:  # a command that is refused does not wait for torch
    from torch import Tensor

__all__ = ["check_writable", "new_file", "new_folder", "write_tensors"]


def check_writable(path: Path, marker: str | None = None) -> None:
    """Raise InputError now rather than after minutes of work when ``path`` cannot be written.

    An existing folder may be replaced only when it is empty or holds ``marker``, a file that tells
    that this package wrote it.
    """
    try:
        if marker is not None and path.exists():
            if not path.is_dir():
                raise InputError(
                    f"{path} is a file; expected a folder to write, choose another --out"
                )
            if any(path.iterdir()) and not (path / marker).is_file():
                raise InputError(
                    f"the folder {path} holds other files; expected a new or empty folder or an "
                    "earlier result to replace. Choose another --out."
                )
        if marker is None and path.is_dir():
            raise InputError(f"{path} is a folder; expected a file to write, choose another --out")
        if os.path.ismount(path):  # nothing can take its place
            raise InputError(
                f"{path} is a mount point, which cannot be replaced; choose an --out inside it"
            )
        parent = path.resolve().parent
        while not parent.exists():
            parent = parent.parent
    except (OSError, RuntimeError) as error:
        # A folder that may not be entered, a name that is too long, links in a circle.
        raise InputError(
            f"cannot write {path} ({getattr(error, 'strerror', None) or error}); choose an --out "
            "in a folder that you own"
        ) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {parent}; choose an --out in a folder that you own")


@contextmanager
def new_folder(path: Path, marker: str, reads: Iterable[Path | None] = ()) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well.

    An earlier result in its place (see ``check_writable``) goes away in the same moment; after an
    error or Ctrl-C nothing has changed. None of ``reads``, what the block reads, may lie in it.
    """
    check_writable(path, marker)
    for read in reads:
        if read is not None and read.exists() and read.resolve().is_relative_to(path.resolve()):
            what = "it" if read.resolve() == path.resolve() else f"{read} in it"
            raise InputError(
                f"the folder {path} would be replaced, but {what} is read; choose another --out"
            )
    path = path.resolve()  # a link stays, what it leads to is written
    with _parents(path):
        work = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        try:
            work.chmod(0o755)  # mkdtemp makes it private
            yield work
            _exchange(work, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _exchange(work: Path, path: Path) -> None:
    """Put the folder ``work`` in the place of ``path``, which may exist."""
    if not path.exists():
        work.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.old.", dir=path.parent))
    try:
        path.rename(old / path.name)
        work.rename(path)
    except BaseException:
        if work.exists() and not path.exists():
            (old / path.name).rename(path)
        with suppress(OSError):  # never what could not be put back
            old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """The folders above ``path``; those that were made for it go away again after an error."""
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):  # somebody else may have put something there meanwhile
                parent.rmdir()
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file name beside ``path`` that takes its place when the block ends well."""
    check_writable(path)
    path = path.resolve()
    with _parents(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        os.close(handle)
        work = Path(name)
        try:
            yield work
            work.chmod(0o644)
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)


def write_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write a safetensors file that others may read; OSError, as of any file, where it fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        # "I/O error: No space left on device (os error 28)"
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(0o644)  # the library makes it private
