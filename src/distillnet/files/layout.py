"""Which files of a folder a command writes, and which are the user's."""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["Layout", "entries", "is_folder", "is_workplace", "workplace_name"]

_WORKPLACE = re.compile(r"\..+\.distillnet")
_LONGEST = 40  # of a name within another: 255 bytes are the most, and a character may take four


@dataclass(frozen=True)
class Layout:
    """The files of a result folder, as patterns of paths in it; ``*`` stays within one folder.

    All that fits none of them is the user's, and never removed.

    Attributes:
        marker: the file that tells a result, which may be replaced, from any other folder.
        own: what the command writes. What of it lies in the earlier result goes with that.
        derived: what others make of the result, which does not fit the next one.
        begun: a file that tells work on a result that was interrupted; the same is done with it.

    >>> layout = Layout("a.json", ("a.json", "parts/*.bin"), ("c/model.*",))
    >>> [layout.is_own(name) for name in ("a.json", "parts/1.bin", "parts/1/2.bin", "1.bin")]
    [True, True, False, False]
    >>> layout.is_derived("c/model.h"), layout.is_derived("c/notes")
    (True, False)
    """

    marker: str
    own: tuple[str, ...]
    derived: tuple[str, ...] = ()
    begun: str | None = None

    def is_own(self, path: str) -> bool:
        """Whether the command itself writes a file of this name, relative, with "/"."""
        return any(_fits(path.split("/"), pattern.split("/")) for pattern in self.own)

    def is_derived(self, path: str) -> bool:
        """Whether another command makes a file of this name of the result."""
        return any(_fits(path.split("/"), pattern.split("/")) for pattern in self.derived)

    def is_in_the_way(self, path: str, *, folder: bool) -> bool:
        """Whether the command could not write because of this: a folder for a file, or reversed.

        >>> layout = Layout("a.json", ("a.json", "parts/*.bin"))
        >>> layout.is_in_the_way("parts", folder=False), layout.is_in_the_way("parts", folder=True)
        (True, False)
        """
        if folder:
            return self.is_own(path)
        parts = path.split("/")
        return any(
            _fits(parts, pattern.split("/")[: len(parts)])
            for pattern in self.own
            if pattern.count("/") >= len(parts)
        )


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
