"""Which files of a folder a command writes, and which are the user's."""

import glob
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from distillnet.files.regular import read_regular

__all__ = ["Layout", "entries", "files_in", "is_folder", "is_workplace", "workplace_name"]

_WORKPLACE = re.compile(r"\..+\.distillnet")
_MOST_LISTED = 2**22  # bytes of a marker that lists files
_LONGEST = 40  # of a name within another: 255 bytes are the most, and a character may take four


@dataclass(frozen=True)
class Layout:
    """The files of a result folder, as patterns of paths in it; ``*`` stays within one folder.

    All that fits none of them is the user's, and never removed.

    Attributes:
        marker: the file that tells a result, which may be replaced, from any other folder.
        own: what the command writes. What of it lies in the earlier result goes with that.
        derived: what others make of the result, which does not fit the next one.
        also: other files that tell what may be replaced: work on a result that was interrupted.
        listed: what the command writes under names that files of the user's may have, too, such as
            ``src/*.c``: its own are those that the marker lists, under ``files``.
        inner: results of other commands in folders of this one, which are made of it: (folder,
            their layout).

    >>> layout = Layout("a.json", ("a.json", "parts/*.bin"), ("c/model.*",))
    >>> [layout.is_own(name) for name in ("a.json", "parts/1.bin", "parts/1/2.bin", "1.bin")]
    [True, True, False, False]
    >>> layout.is_derived("c/model.h"), layout.is_derived("c/notes")
    (True, False)
    """

    marker: str
    own: tuple[str, ...]
    derived: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    inner: tuple[tuple[str, "Layout"], ...] = ()

    def within(self, folder: Path) -> "Layout":
        """As it is of a result in ``folder``: with what that lists among its own files."""
        found = _listed(folder / self.marker) or () if self.listed else ()
        return replace(
            self,
            own=(*self.own, *(glob.escape(path) for path in found if _any_fits(path, self.listed))),
            inner=tuple((name, layout.within(folder / name)) for name, layout in self.inner),
        )

    def is_result(self, folder: Path) -> bool:
        """Whether a folder holds a result, or work on one, which may be replaced."""
        if any((folder / name).is_file() for name in self.also):
            return True
        if self.listed:
            return _listed(folder / self.marker) is not None
        return (folder / self.marker).is_file()

    @property
    def markers(self) -> tuple[str, ...]:
        """Its own, and those of results in it."""
        return (
            self.marker,
            *(f"{name}/{path}" for name, layout in self.inner for path in layout.markers),
        )

    def is_own(self, path: str) -> bool:
        """Whether the command itself writes a file of this name, relative, with "/"."""
        return _any_fits(path, self.own)

    def is_derived(self, path: str) -> bool:
        """Whether another command makes a file of this name of the result."""
        return _any_fits(path, self.derived) or any(
            path.startswith(f"{name}/") and layout.is_own(path[len(name) + 1 :])
            for name, layout in self.inner
        )

    def is_in_the_way(self, path: str, *, folder: bool) -> bool:
        """Whether the command could not write because of this: a folder for a file, or reversed.

        >>> layout = Layout("a.json", ("a.json", "parts/*.bin"))
        >>> layout.is_in_the_way("parts", folder=False), layout.is_in_the_way("parts", folder=True)
        (True, False)
        """
        written = (*self.own, *self.listed)
        if folder:
            return _any_fits(path, written)
        parts = path.split("/")
        return any(
            _fits(parts, pattern.split("/")[: len(parts)])
            for pattern in written
            if pattern.count("/") >= len(parts)
        )


def files_in(folder: Path) -> list[str]:
    """What a marker lists: the paths of all files in a folder that was just written."""
    return sorted(path for path, entry in entries(folder) if not is_folder(entry))


class _Marker(msgspec.Struct):
    files: tuple[str, ...]


def _listed(marker: Path) -> tuple[str, ...] | None:
    """What a marker lists; None where there is none, or one that somebody else wrote."""
    try:
        return msgspec.json.decode(read_regular(marker, _MOST_LISTED), type=_Marker).files
    except (OSError, ValueError, RecursionError):
        return None


def _any_fits(path: str, patterns: Sequence[str]) -> bool:
    return any(_fits(path.split("/"), pattern.split("/")) for pattern in patterns)


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def entries(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All that lies below a folder, a folder before what it holds; links are not followed.

    Workplaces and what is in them are left out. Paths are relative, with "/".
    """
    waiting = [""]
    while waiting:
        at = waiting.pop()
        with os.scandir(folder / at) as listed:
            found = sorted(listed, key=lambda entry: entry.name)
        for entry in found:
            if is_workplace(entry.name) and is_folder(entry):
                continue
            path = f"{at}{entry.name}"
            yield path, entry
            if is_folder(entry):
                waiting.append(f"{path}/")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder itself, not a link to one."""
    return entry.is_dir(follow_symlinks=False)


def workplace_name(name: str) -> str:
    """What the hidden folder beside a result of this name is called.

    >>> workplace_name("run")
    '.run.distillnet'
    """
    if len(name) > _LONGEST:  # unlike that of any other long name
        name = f"{name[:_LONGEST]}.{zlib.crc32(os.fsencode(name)):08x}"
    return f".{name}.distillnet"


def is_workplace(name: str) -> bool:
    """Whether a folder of this name is one of ours beside, or in, a result."""
    return _WORKPLACE.fullmatch(name) is not None
