"""What to say where classes have no images: which folders were expected, which may be meant."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from distillnet.classes import ClassTable

__all__ = ["shortened", "what_is_missing"]


def what_is_missing(
    source: Path,
    table: ClassTable,
    missing: Sequence[int],
    of: int,
    folders: Sequence[str],
    suffixes: Sequence[str],
) -> str:
    """One message for all classes that are ``missing`` among ``of`` in a source of ``folders``."""
    found = f"found {shortened(folders)}" if folders else "found no folders at all"
    kinds = f"with images ({' '.join(suffixes)}) in it"
    if len(missing) == 1:
        label = missing[0]
        return (
            f"{source} holds no images of class {label} ({table.names[label]}); expected a "
            f"folder called {_accepted(table, label)} {kinds}, {found}"
            f"{_near(table, label, folders)}"
        )
    listed = [
        f"\n  class {label} ({table.names[label]}), called {_accepted(table, label)}"
        f"{_near(table, label, folders)}"
        for label in missing
    ]
    return (
        f"{source} holds no images of {len(missing)} of {of} classes; expected a folder for each "
        f"{kinds}, {found}:{''.join(listed)}"
    )


def shortened(items: Sequence[str], at_most: int = 12) -> str:
    """The first items with commas between, and how many more there are.

    >>> shortened(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return ", ".join(items[:at_most]) + more


def _accepted(table: ClassTable, label: int) -> str:
    return shortened([repr(text) for text in table.spellings(label)])


def _near(table: ClassTable, label: int, folders: Sequence[str]) -> str:
    """Of the folders that no class fits, the one that is spelled most like this class."""
    free = {name.casefold(): name for name in folders if not table.matches(name)}
    spelled = [text.casefold() for text in table.spellings(label) if not text.isdecimal()]
    close = [near for text in spelled for near in difflib.get_close_matches(text, free, n=1)]
    if not close:
        return ""
    name = free[close[0]]
    return f'. If {name!r} is meant, write "{name}={table.names[label]}"'
