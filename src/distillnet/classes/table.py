"""The classes of a network and the names they go by.

A class is named by its index or by any alias. Aliases are compared without regard to case, and
spaces, underscores and hyphens are equal, so a folder ``chain_saw`` means the class *chain saw*.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from distillnet.errors import InputError

__all__ = [
    "ClassTable",
    "imagenet_table",
    "numbered_table",
    "read_class_table",
]


def _key(text: str) -> str:
    """What two spellings of one alias have in common."""
    # NFKC: macOS hands out folder names decomposed, and "é" must equal "é".
    # Stripped first: the hyphen of "-1" is no separator.
    key = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", text).strip().casefold())
    # Folders of numbered classes are often padded: "007" is class 7.
    return str(int(key)) if re.fullmatch(r"[0-9]{1,9}", key) else key


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
            distinct.setdefault(_key(text), text)
        return tuple(distinct.values())

    def matches(self, text: str) -> tuple[int, ...]:
        """Every class that ``text`` may mean, ascending: none, one, or several."""
        return self._by_key.get(_key(text), ())

    def lookup(self, text: str) -> int | None:
        """The class that ``text`` means, or None; InputError if it fits several."""
        found = self.matches(text)
        if len(found) > 1:
            listed = "; ".join(self._described(index) for index in found)
            raise InputError(
                f"the class name {text!r} fits {len(found)} classes: {listed}. "
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

    @cached_property
    def _by_key(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for index in range(len(self)):
            for text in self.spellings(index):
                found[_key(text)] = (*found.get(_key(text), ()), index)
        return found

    def _described(self, index: int) -> str:
        aliases = [text for text in self.spellings(index)[1:] if text != self.names[index]]
        return f"{index} {self.names[index]}" + (f" ({', '.join(aliases)})" if aliases else "")

    def _unknown(self, text: str) -> InputError:
        return InputError(
            f"there is no class {text!r} among the network's {len(self)} classes; expected an "
            f"index from 0 to {len(self) - 1} or an alias. {self._suggestions(text)}"
        )

    def _suggestions(self, text: str) -> str:
        close = difflib.get_close_matches(_key(text), self._by_key, n=3)
        if not close or _key(text).isdecimal():  # no other number is nearer to what was meant
            return "Check the spelling, or give the index."
        listed = (f"{key!r} ({', '.join(map(str, self._by_key[key]))})" for key in close)
        return f"Did you mean {' or '.join(listed)}?"


def numbered_table(n: int, names: Sequence[str] | None = None) -> ClassTable:
    """A table of ``n`` classes called ``names``, or "0" to "n-1".

    >>> numbered_table(2, ["cat", "dog"]).resolve("dog"), numbered_table(3).resolve("2")
    (1, 2)
    """
    if names is None:
        names = [str(index) for index in range(n)]
    if len(names) != n:
        raise InputError(f"found {len(names)} class names for a network of {n} classes; give {n}")
    return _table(names, [()] * n)


def imagenet_table() -> ClassTable:
    """The 1,000 classes of ImageNet-1k: torchvision's names, WordNet ids and WordNet lemmas.

    >>> imagenet_table().resolve("n02102040"), imagenet_table().names[217]
    (217, 'English springer')
    """
    file = resources.files("distillnet.classes") / "imagenet1k.tsv"
    return _parse_table(file.read_text(encoding="utf-8"), "the built-in ImageNet table", 1000)


def read_class_table(path: str | Path, n_classes: int) -> ClassTable:
    """Read the table of ``n_classes`` classes from a TSV file.

    The header names a column ``index`` and any number of alias columns; a cell may be empty. The
    canonical name is in the column ``name``, else in the first column that does not hold codes
    such as n01440764. InputError if the file is not such a table of exactly these classes.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the class names in {path} are not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read the class names in {path} ({error.strerror}); expected a TSV file"
        ) from error
    return _parse_table(text, str(path), n_classes)


def _parse_table(text: str, source: str, n_classes: int) -> ClassTable:
    # Not the csv module: a cell of a TSV may hold a bare quotation mark. Not splitlines(): it
    # also splits at characters that may stand in a name, such as U+2028.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    header = [title.strip().lower() for title in lines[0].split("\t")]
    if header.count("index") != 1:
        raise InputError(
            f"{source} begins with the columns {', '.join(map(repr, header))}; expected a "
            "tab-separated header with one column 'index' and columns of names"
        )
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        cells += [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise InputError(
                f"{source}, line {number}: found {len(cells)} cells, but the header has "
                f"{len(header)}; give every column a title"
            )
        cell = cells[header.index("index")]
        if not re.fullmatch(r"[0-9]{1,9}", cell) or int(cell) >= n_classes:
            raise InputError(
                f"{source}, line {number}: found index {cell!r}; expected a number from 0 to "
                f"{n_classes - 1}, because the network has {n_classes} outputs"
            )
        if int(cell) in rows:
            raise InputError(
                f"{source}, line {number}: index {cell} stands there a second time; give each "
                "class one line and its other names further columns"
            )
        rows[int(cell)] = cells
    missing = [index for index in range(n_classes) if index not in rows]
    if missing:
        raise InputError(
            f"{source} has {len(rows)} of the network's {n_classes} classes; add "
            + _shortened(map(str, missing))
        )
    columns = [
        [rows[index][column] for index in range(n_classes)]
        for column in _alias_columns(header, list(rows.values()))
    ]
    cells_by_class = [[cell for cell in cells if cell] for cells in zip(*columns, strict=True)]
    cells_by_class = cells_by_class or [[] for _ in range(n_classes)]
    names = [cells[0] if cells else str(index) for index, cells in enumerate(cells_by_class)]
    return _table(names, [tuple(cells[1:]) for cells in cells_by_class])


def _alias_columns(header: list[str], rows: list[list[str]]) -> list[int]:
    """The columns of aliases, the one with the canonical names first."""
    columns = [column for column, title in enumerate(header) if title != "index"]

    def rank(column: int) -> int:
        if header[column] == "name":
            return 0
        codes = all(re.fullmatch(r"[A-Za-z]?[0-9]*", row[column]) for row in rows)
        return 2 if codes else 1

    canonical = min(columns, key=rank, default=None)
    return sorted(columns, key=lambda column: (column != canonical, column))


def _table(names: Sequence[str], aliases: Sequence[tuple[str, ...]]) -> ClassTable:
    """A table whose names are distinct, because results are reported by name."""
    shared = {name for name, times in Counter(names).items() if times > 1}
    return ClassTable(
        tuple(f"{name} ({i})" if name in shared else name for i, name in enumerate(names)),
        tuple(
            (name, *others) if name in shared else others
            for name, others in zip(names, aliases, strict=True)
        ),
    )


def _shortened(items: Iterable[str], limit: int = 5) -> str:
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
