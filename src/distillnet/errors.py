"""What can go wrong, as a tree of exceptions.

    DistillnetError          anything this package raises on purpose
    └── InputError           the user's input is wrong; exit status 2
        ├── UnsupportedError an operator or architecture that cannot be distilled
        └── ImageError       images that cannot be used

Every message names what was found, what was expected and what to do. What callers from Python pass
is checked by ``expect`` and ``as_path``.
"""

import os
from pathlib import Path
from typing import Any

__all__ = [
    "DistillnetError",
    "ImageError",
    "InputError",
    "UnsupportedError",
    "as_path",
    "expect",
]


class DistillnetError(Exception):
    """Anything this package raises on purpose."""


class InputError(DistillnetError):
    """The input is wrong; the message says what was found, what was expected and what to do."""


class UnsupportedError(InputError):
    """The network holds an operator or a structure that distillnet does not follow."""


class ImageError(InputError):
    """A folder of images cannot be used, or too many of its images cannot be read."""


def expect(value: Any, kinds: type | tuple[type, ...], what: str, instead: str) -> None:
    """Raise InputError where a value is of none of some types; ``instead`` says what to pass.

    >>> expect(3, str, "a name", "text such as 'cat'")
    Traceback (most recent call last):
    distillnet.errors.InputError: found an int as a name; expected text such as 'cat'
    """
    if not isinstance(value, kinds):
        name = type(value).__name__
        article = "an" if name[:1].lower() in "aeiou" else "a"
        raise InputError(f"found {article} {name} as {what}; expected {instead}")


def as_path(value: str | os.PathLike[str], what: str) -> Path:
    """A path that was given as text or as a path."""
    expect(value, (str, os.PathLike), what, "a path, as text or pathlib.Path")
    return Path(value)
