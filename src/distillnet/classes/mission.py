"""The mission: the few classes of a network that are wanted."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from distillnet.classes.spelling import key
from distillnet.classes.table import ClassTable
from distillnet.errors import InputError

__all__ = ["Mission", "mission_of_folders", "parse_mission"]


@dataclass(frozen=True)
class Mission:
    """The classes that the network shall still tell apart, in the order of its new outputs."""

    indices: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def named(self, table: ClassTable) -> ClassTable:
        """The network's table in which the mission's classes have the mission's names."""
        return table.renamed(dict(zip(self.indices, self.names, strict=True)))


def parse_mission(text: str | Sequence[str | int], table: ClassTable, *, least: int = 2) -> Mission:
    """The mission named by a comma-separated text, or by a sequence of indices and aliases.

    ``OWN=NAME`` gives class NAME the name OWN, in the mission and for folders of images. An alias
    that holds a comma is quoted as in CSV. An int is always an index. InputError, one for all that
    is wrong: classes that are unknown, ambiguous or named twice, or fewer than ``least``.

    >>> from distillnet.classes.table import numbered_table
    >>> parse_mission('dog, "cat, domestic"', numbered_table(2, ["cat, domestic", "dog"])).indices
    (1, 0)
    >>> parse_mission("pug=dog, cats", numbered_table(2, ["cat", "dog"])).names
    ('pug', 'cat')
    """
    if isinstance(text, str):
        rows = csv.reader(io.StringIO(text), skipinitialspace=True)
        given: list[str | int] = [cell.strip() for row in rows for cell in row if cell.strip()]
    else:
        given = list(text)
    read = _Reading(table)
    for item in given:
        read.add(item)
    read.raise_faults(len(given))
    if len(read.names) < least:
        n = len(read.names)
        raise InputError(
            f"the mission has {n} {'class' if n == 1 else 'classes'} "
            f"(from {text!r}); expected at least {least}, separated by commas"
        )
    return Mission(tuple(read.names), tuple(read.names.values()))


def mission_of_folders(folders: Sequence[str], table: ClassTable, source: str) -> Mission:
    """The mission of all classes that have a folder of images, in the order of the folders.

    Several folders of one class are one class. InputError, which begins with ``source``, names all
    folders that no class fits.
    """
    read = _Reading(table)
    for name in folders:
        read.add(name, again=True)
    try:
        read.raise_faults(len(folders))
    except InputError as error:
        raise InputError(
            f"without --classes, the mission is every folder in {source}, but {error}"
        ) from error
    if len(read.names) < 2:
        raise InputError(
            f"{source} has folders of {len(read.names)} of the network's classes "
            f"({', '.join(map(repr, folders[:12])) or 'no folders at all'}); expected at least 2, "
            "each with the images of one class"
        )
    return Mission(tuple(read.names), tuple(read.names.values()))


class _Reading:
    """A mission as far as it is read: names by index, and what does not fit."""

    def __init__(self, table: ClassTable) -> None:
        self.table = table
        self.names: dict[int, str] = {}
        self._spelled: dict[int, str | int] = {}
        self._faults: list[tuple[str, str]] = []  # alone, and in a list of several

    def add(self, item: str | int, *, again: bool = False) -> None:
        """Read one item; ``again`` allows that another has named the class already."""
        own, wanted = _parts(item, self.table)
        index = self._index(item, wanted)
        if index is None or (index in self._spelled and again):
            return
        name = self.table.names[index] if own is None else own
        same = [i for i, other in self.names.items() if key(other) == key(name) and i != index]
        if index in self._spelled:
            self._fault(
                f"the mission names class {index} ({self.table.names[index]}) twice, as "
                f"{self._spelled[index]!r} and as {item!r}; name each class once"
            )
        elif own is not None and (not own or key(own).isdecimal()):
            found = f"the number {own!r} as its name" if own else "an empty name"
            self._fault(
                f"{item!r} gives class {index} {found}; expected a name that cannot be taken for "
                "the index of a class, as in football=805"
            )
        elif same:
            self._fault(
                f"{item!r} gives class {index} the name {name!r}, which class {same[0]} already "
                "has in this mission; choose another"
            )
        else:
            self._spelled[index], self.names[index] = item, name

    def _index(self, item: str | int, wanted: str | int) -> int | None:
        """The class of an item, or None after noting what is wrong with it."""
        table = self.table
        try:
            return table.checked(wanted) if isinstance(wanted, int) else table.resolve(wanted)
        except InputError as error:
            text = str(wanted)
            matches = () if isinstance(wanted, int) else table.matches(text)
            hint = ""
            if matches:
                short = f"fits {table.described(matches)}"
            elif near := table.nearest(text):
                short = f"is not among them; nearest: {', '.join(near)}"
            else:
                short = "is not among them, and no name is close"
            if item == wanted and not matches:
                hint = ' For a folder with another name write OWN=NAME, as in "ball=soccer ball".'
            self._faults.append((f"{error}{hint}", f"{str(item)!r} {short}"))
            return None

    def _fault(self, message: str) -> None:
        self._faults.append((message, message))

    def raise_faults(self, of: int) -> None:
        """InputError if there was anything wrong: one message for all."""
        if len(self._faults) == 1:
            raise InputError(self._faults[0][0])
        if self._faults:
            n = len(self.table)
            listed = "".join(f"\n  {short}" for _, short in self._faults)
            raise InputError(
                f"{len(self._faults)} of {of} names do not fit the network's {n:,} classes; "
                f"expected an index from 0 to {n - 1}, an alias, or OWN=NAME for a name of your "
                f"own:{listed}"
            )


def _parts(item: str | int, table: ClassTable) -> tuple[str | None, str | int]:
    """The name of the user's own, if there is one, and what names the class."""
    # A class may have "=" in its own name.
    if isinstance(item, int) or "=" not in item or table.matches(item):
        return None, item
    own, _, wanted = item.partition("=")
    return own.strip(), wanted.strip()
