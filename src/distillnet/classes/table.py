"""The classes of a network and the names they go by.

A class is named by its index or by any alias. Aliases are compared without regard to case, and
spaces, underscores and hyphens are equal, so a folder ``chain_saw`` means the class *chain saw*.
Where no name fits as it stands, a plural of one does, or its singular: ``Leopards``.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from distillnet.classes.spelling import key, plurals
from distillnet.errors import InputError

__all__ = ["ClassTable", "numbered_table", "table_of"]


@dataclass(frozen=True)
class ClassTable:
    """The canonical name of every class by index, and any number of aliases per class.

    >>> table = ClassTable(("crane bird", "crane"), (("n02012849", "crane"), ("n03126707",)))
    >>> table.resolve("Crane_Bird"), table.resolve("n03126707"), table.lookup("heron")
    (0, 1, None)
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def spellings(self, index: int) -> tuple[str, ...]:
        """Everything class ``index`` may be called: its index, its name, its aliases."""
        distinct: dict[str, str] = {}
        for text in (str(index), self.names[index], *self.aliases[index]):
            distinct.setdefault(key(text), text)
        return tuple(distinct.values())

    def matches(self, text: str) -> tuple[int, ...]:
        """Every class that ``text`` may mean, ascending: none, one, or several."""
        return self._by_key.get(key(text)) or self._by_number(key(text))

    def lookup(self, text: str) -> int | None:
        """The class that ``text`` means, or None; InputError if it fits several."""
        found = self.matches(text)
        if len(found) > 1:
            raise InputError(
                f"the class name {text!r} fits {self.described(found)}. "
                "Use the index, or another alias that only the class you mean has."
            )
        return found[0] if found else None

    def resolve(self, text: str) -> int:
        """The class that ``text`` means; InputError if it fits none or several."""
        index = self.lookup(text)
        if index is None:
            raise self._unknown(text)
        return index

    def checked(self, index: int) -> int:
        """The index itself, which is never ambiguous; InputError if no class has it."""
        if not 0 <= index < len(self):
            raise self._unknown(str(index))
        return index

    def renamed(self, own: Mapping[int, str]) -> "ClassTable":
        """The same classes with names of the user's own; what they were called are aliases.

        No other class answers to such a name any more.

        >>> table = numbered_table(3, ["lemon", "orange", "fig"]).renamed({0: "Orange"})
        >>> table.names, table.resolve("orange"), table.resolve("lemon")
        (('Orange', 'orange (1)', 'fig'), 0, 0)
        """
        own = {index: name for index, name in own.items() if name != self.names[index]}
        if not own:
            return self
        taken = {key(name) for name in own.values()}
        names, aliases = list(self.names), list(self.aliases)
        for index, name in enumerate(self.names):
            others = (name, *self.aliases[index]) if index in own else self.aliases[index]
            aliases[index] = tuple(text for text in others if key(text) not in taken)
            if index in own:
                names[index] = own[index]
            elif key(name) in taken:
                names[index] = f"{name} ({index})"
        return ClassTable(tuple(names), tuple(aliases))

    def described(self, indices: Sequence[int]) -> str:
        """Several classes with all that tells them apart: "2 classes: 3 crane (n04); ..."."""
        listed = []
        for index in indices:
            aliases = [text for text in self.spellings(index)[1:] if text != self.names[index]]
            known_as = f" ({', '.join(aliases)})" if aliases else ""
            listed.append(f"{index} {self.names[index]}{known_as}")
        return f"{len(indices)} classes: {'; '.join(listed)}"

    def nearest(self, text: str, n: int = 3) -> tuple[str, ...]:
        """Up to ``n`` names that may have been meant, each with its index: "'tench' (0)"."""
        wanted = key(text)
        if not wanted or wanted.isdecimal():  # no other number is nearer to what was meant
            return ()
        # A name of several words of which this is one, then what is spelled alike.
        holding = [known for known in self._by_key if wanted in known.split()]
        close = difflib.get_close_matches(wanted, self._by_key, n=2 * n)
        found: dict[int, str] = {}
        for known in (*sorted(holding, key=len), *close):
            for index in self._by_key[known]:
                spelled = next(t for t in self.spellings(index) if key(t) == known)
                found.setdefault(index, f"{spelled!r} ({index})")
        return tuple(found.values())[:n]

    @cached_property
    def _by_key(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for index in range(len(self)):
            for text in self.spellings(index):
                found[key(text)] = (*found.get(key(text), ()), index)
        return found

    @cached_property
    def _by_plural(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for known, indices in self._by_key.items():
            for plural in plurals(known):
                found[plural] = (*found.get(plural, ()), *indices)
        return found

    def _by_number(self, wanted: str) -> tuple[int, ...]:
        """The classes that ``wanted``, a key, is the plural or the singular of."""
        found = set(self._by_plural.get(wanted, ()))
        for plural in plurals(wanted):
            found |= set(self._by_key.get(plural, ()))
        return tuple(sorted(found))

    def _unknown(self, text: str) -> InputError:
        near = self.nearest(text)
        advice = f"Did you mean {' or '.join(near)}?" if near else "Check the spelling, or give the"
        return InputError(
            f"there is no class {text!r} among the network's {len(self)} classes; expected an "
            f"index from 0 to {len(self) - 1} or an alias. {advice}{'' if near else ' index.'}"
        )


def numbered_table(n: int, names: Sequence[str] | None = None) -> ClassTable:
    """A table of ``n`` classes called ``names``, or "0" to "n-1".

    >>> numbered_table(2, ["cat", "dog"]).resolve("dog"), numbered_table(3).resolve("2")
    (1, 2)
    """
    if names is None:
        names = [str(index) for index in range(n)]
    if len(names) != n:
        raise InputError(f"found {len(names)} class names for a network of {n} classes; give {n}")
    return table_of(names, [()] * n)


def table_of(names: Sequence[str], aliases: Sequence[tuple[str, ...]]) -> ClassTable:
    """A table whose names are distinct, because results are reported by name."""
    shared = {name for name, times in Counter(names).items() if times > 1}
    return ClassTable(
        tuple(f"{name} ({i})" if name in shared else name for i, name in enumerate(names)),
        tuple(
            (name, *others) if name in shared else others
            for name, others in zip(names, aliases, strict=True)
        ),
    )
