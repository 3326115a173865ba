"""What a command wrote into a folder, by hash: ``manifest.json``.

It tells a result that was damaged, cut off or changed by hand from one that is whole; it is no
signature, and whoever changes a folder can write another. Files that are not listed, notes and
what later commands add, are nobody's business here.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from distillnet.errors import InputError
from distillnet.files.documents import Count, Document, Sha256, read_document
from distillnet.files.regular import open_regular

__all__ = ["MANIFEST", "Manifest", "Sealed", "check_sealed", "read_manifest", "seal"]

MANIFEST = "manifest.json"
_FORMAT = 1
_REMEDY = "copy the whole folder again, or make it again with the command that wrote it"

# A name below the folder, in posix form; none leads out of it.
_Name = Annotated[str, Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\\\x00]{1,255}$")]


class Sealed(Document, frozen=True):
    """A file as it was written."""

    bytes: Count
    sha256: Sha256


class Manifest(Document, frozen=True):
    """All files of a folder that belong to the result, by name."""

    format: int
    files: dict[_Name, Sealed]


def seal(directory: Path, names: Iterable[str]) -> None:
    """Write the manifest of files in a folder, the last thing that a command does there."""
    files = {}
    for name in sorted(names):
        path = directory / name
        files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    text = json.dumps({"format": _FORMAT, "files": files}, indent=1)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a folder; InputError where there is none that can be read."""
    return read_document(directory / MANIFEST, Manifest, _REMEDY, format_=_FORMAT)


def check_sealed(directory: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Raise InputError where a file is missing or not the one that was written."""
    for name in names:
        path, sealed = directory / name, manifest.files.get(name)
        if sealed is None:
            raise InputError(f"{directory / MANIFEST} does not list {name}; {_REMEDY}")
        try:
            with open_regular(path) as file:
                size = path.stat().st_size
                whole = size == sealed.bytes and _digest(file) == sealed.sha256
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
        if not whole:
            found = f"{size:,} bytes" if size != sealed.bytes else "other bytes of the same number"
            raise InputError(
                f"{path} is not the file that was written: found {found}, expected "
                f"{sealed.bytes:,} bytes of SHA-256 {sealed.sha256[:12]}... It was damaged, or "
                f"changed afterwards; {_REMEDY}"
            )


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return _digest(file)


def _digest(file: object) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
