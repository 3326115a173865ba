"""The mission: the few classes of a network that are wanted."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from distillnet.classes.table import ClassTable
from distillnet.errors import InputError

__all__ = ["Mission", "parse_mission"]


@dataclass(frozen=True)
class Mission:
    """The classes that the network shall still tell apart, in the order of its new outputs."""

    indices: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.indices)


def parse_mission(text: str | Sequence[str | int], table: ClassTable) -> Mission:
    """The mission named by a comma-separated text, or by a sequence of indices and aliases.

    An alias that holds a comma is quoted as in CSV. InputError for a class that is unknown,
    ambiguous or named twice, and for fewer than two classes. An int is always an index.

    >>> from distillnet.classes.table import numbered_table
    >>> parse_mission('dog, "cat, domestic"', numbered_table(2, ["cat, domestic", "dog"])).indices
    (1, 0)
    """
    if isinstance(text, str):
        rows = csv.reader(io.StringIO(text), skipinitialspace=True)
        given: list[str | int] = [cell.strip() for row in rows for cell in row if cell.strip()]
    else:
        given = list(text)
    spelled: dict[int, str | int] = {}
    for item in given:
        index = table.checked(item) if isinstance(item, int) else table.resolve(item)
        if index in spelled:
            raise InputError(
                f"the mission names class {index} ({table.names[index]}) twice, as "
                f"{spelled[index]!r} and as {item!r}; name each class once"
            )
        spelled[index] = item
    if len(spelled) < 2:
        raise InputError(
            f"the mission has {len(spelled)} {'class' if spelled else 'classes'} "
            f"(from {text!r}); expected at least 2, separated by commas"
        )
    return Mission(tuple(spelled), tuple(table.names[index] for index in spelled))
