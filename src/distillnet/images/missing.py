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
    strangers = [name for name in folders if not table.matches(name)]
    advice = _advice(strangers)
    if len(missing) == 1:
        label = missing[0]
        near = _near(table, label, strangers)
        return (
            f"{source} holds no images of class {label} ({table.names[label]}); expected a folder "
            f"called {_accepted(table, label)} {kinds}, {found}. {near or advice}"
        ).rstrip()
    first = (
        f"{source} holds no images of {len(missing)} of {of} classes; expected a folder for each "
        f"{kinds}, {found}:"
    )
    listed = [
        f"  class {label} ({table.names[label]}), called {_accepted(table, label)}. "
        f"{_near(table, label, strangers)}".rstrip(". ")
        for label in missing
    ]
    return "\n".join([first, *listed, *([advice] if advice else [])])


def shortened(items: Sequence[str], at_most: int = 12) -> str:
    """The first items with commas between, and how many more there are.

    >>> shortened(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return ", ".join(items[:at_most]) + more


def _accepted(table: ClassTable, label: int) -> str:
    return shortened([repr(text) for text in table.spellings(label)])


def _advice(strangers: Sequence[str]) -> str:
    """What to do with folders that no class fits."""
    if not strangers:
        return ""
    folders = "the folders" if len(strangers) > 1 else "the folder"
    return (
        f"No class matches {folders} {shortened(strangers)}; in --classes, {strangers[0]}=NAME "
        "assigns such a folder to the network's class NAME."
    )


def _near(table: ClassTable, label: int, strangers: Sequence[str]) -> str:
    """What to write if a folder that no class fits is spelled much like this one."""
    free = {name.casefold(): name for name in strangers}
    spelled = [text.casefold() for text in table.spellings(label) if not text.isdecimal()]
    close = [near for text in spelled for near in difflib.get_close_matches(text, free, n=1)]
    if not close:
        return ""
    return f'If {free[close[0]]!r} is meant, write "{free[close[0]]}={table.names[label]}".'
