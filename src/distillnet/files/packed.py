"""How a packed file is known, before torch is there; ``models.packed`` reads it."""

from pathlib import Path

from distillnet.files.regular import open_regular

__all__ = ["MAGIC", "is_packed"]

MAGIC = b"\x89DNPACK\n"


def is_packed(path: Path) -> bool:
    """Whether a regular file begins as a packed one does."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
