"""Writing a file or a folder, all of it or nothing."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distillnet.errors import InputError
from distillnet.files.carry import carry_over, check_folder
from distillnet.files.disk import sync_file, sync_folder, sync_folders, sync_tree
from distillnet.files.layout import Layout
from distillnet.files.workplace import begin_folder, put_in_place, workplace

__all__ = ["check_writable", "new_file", "new_folder", "replace_file"]

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_writable(path: Path, layout: Layout | None = None, *, overwrite: bool = False) -> None:
    """Raise InputError now rather than after minutes of work when ``path`` cannot be written.

    Args:
        layout: of a folder; None for a file. An existing folder may be written to only when it is
            empty or an earlier result, which its marker tells.
        overwrite: whether what others made of an earlier result may go with it.
    """
    try:
        if path.exists():
            expected = stat.S_IFREG if layout is None else stat.S_IFDIR
            kind = stat.S_IFMT(path.stat().st_mode)
            if kind != expected:
                raise InputError(
                    f"{path} is {_KINDS.get(kind, 'no file')}; expected {_KINDS[expected]} to "
                    "write, choose another --out"
                )
        if layout is not None and path.is_dir() and any(path.iterdir()):
            if not layout.is_result(path):
                raise InputError(
                    f"the folder {path} holds other files; expected a new or empty folder or an "
                    "earlier result to replace. Choose another --out."
                )
            check_folder(path, layout, overwrite=overwrite)
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
def new_folder(
    path: Path, layout: Layout, reads: Iterable[Path | None] = (), *, overwrite: bool = False
) -> Iterator[Path]:
    """A folder in a hidden place that takes that of ``path`` when the block ends well.

    Of an earlier result in its place the files that ``layout`` knows go away in the same moment;
    all others stay. After an error or Ctrl-C nothing has changed. At each moment, whether the
    process is killed or the power goes, one of both results is there, whole.

    Args:
        reads: what the block reads; none of it may lie in ``path``.
        overwrite: remove what others made of the earlier result, too; else it is an InputError.

    Raises:
        InputError: ``path`` holds something else, or another process writes there.
    """
    check_writable(path, layout, overwrite=overwrite)
    for read in reads:
        if read is not None and read.exists() and read.resolve().is_relative_to(path.resolve()):
            what = "it" if read.resolve() == path.resolve() else f"{read} in it"
            raise InputError(
                f"the folder {path} would be replaced, but {what} is read; choose another --out"
            )
    path = path.resolve()  # a link stays, what it leads to is written
    with _parents(path), workplace(path, layout) as place:
        check_writable(path, layout, overwrite=overwrite)  # nobody else changes it from here on
        new = begin_folder(place)
        yield new
        sync_tree(new)
        if path.is_dir():
            carry_over(path, new, layout, overwrite=overwrite)
            sync_folders(new)
        put_in_place(new, path)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """The folders above ``path``; those that were made for it go away again after an error."""
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        for parent in missing:
            sync_folder(parent.parent)
    except BaseException:
        for parent in missing:
            with suppress(OSError):  # somebody else may have put something there meanwhile
                parent.rmdir()
        raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file name in a hidden place; what is there when the block ends well becomes ``path``."""
    check_writable(path)
    path = path.resolve()
    with _parents(path), workplace(path) as place:
        work = place / f"new.{path.name[-100:]}"  # some writers look at the end
        yield work
        sync_file(work)
        work.replace(path)
        sync_folder(path.parent)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """As ``new_file``, for a process that has the folder to itself already."""
    work = path.with_name(f"{path.name}.part")
    try:
        yield work
        sync_file(work)
        work.replace(path)
        sync_folder(path.parent)
    finally:
        work.unlink(missing_ok=True)
