"""Writing so that nothing half-written ever stands under a final name."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillnet.errors import InputError

__all__ = ["check_writable", "new_file", "new_folder"]


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
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise InputError(
            f"cannot write {path} ({error.strerror}); choose an --out in a folder that you own"
        ) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {parent}; choose an --out in a folder that you own")


@contextmanager
def new_folder(path: Path, marker: str) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well.

    An earlier result in its place (see ``check_writable``) goes away in the same moment; after an
    error or Ctrl-C nothing has changed.
    """
    check_writable(path, marker)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        work.chmod(0o755)  # mkdtemp makes it private
        yield work
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(old / path.name)
            try:
                work.rename(path)
            except BaseException:
                (old / path.name).rename(path)
                old.rmdir()
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            work.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file name beside ``path`` that takes its place when the block ends well."""
    check_writable(path)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    work = Path(name)
    try:
        work.chmod(0o644)
        yield work
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)
