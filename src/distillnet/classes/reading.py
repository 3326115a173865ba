"""Class tables in files: TSV or CSV with a column ``index``, or one name per line."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

from distillnet.classes.table import ClassTable, table_of
from distillnet.errors import InputError

__all__ = ["imagenet_table", "read_class_table", "read_lines"]

_EXPECTED = (
    "expected a first line with a column 'index' and columns of names, separated by tabs or commas,"
    " or else one name per line, in the order of the network's outputs"
)


def imagenet_table() -> ClassTable:
    """The 1,000 classes of ImageNet-1k: torchvision's names, WordNet ids and WordNet lemmas.

    >>> imagenet_table().resolve("n02102040"), imagenet_table().names[217]
    (217, 'English springer')
    """
    file = resources.files("distillnet.classes") / "imagenet1k.tsv"
    text = file.read_text(encoding="utf-8")
    return _parse_table(text, "the built-in ImageNet table", 1000)


def read_class_table(path: str | Path, n_classes: int | None = None) -> ClassTable:
    """Read a table of classes from a file.

    Either its first line names a column ``index`` and any number of alias columns, separated by
    tabs, commas or semicolons; a cell may be empty. The canonical name is in the column ``name``,
    else in the first column that does not hold codes such as n01440764. Or each line is the name
    of one class, in the order of the network's outputs, and may list synonyms with commas between.

    Args:
        n_classes: the network's outputs; None takes as many classes as the file has.

    Raises:
        InputError: the file is not such a table of exactly these classes.
    """
    path = Path(path)
    return _parse_table("\n".join(read_lines(path, "the class names")), str(path), n_classes)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 file, which a message calls ``what``; InputError if it is none."""
    if path.is_dir():
        raise InputError(f"cannot read {what} in {path}: it is a folder; expected a text file")
    if path.exists() and not path.is_file():
        raise InputError(
            f"cannot read {what} in {path}: it is not a regular file; expected a text file"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} in {path} are not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read {what} in {path} ({error.strerror}); expected a text file"
        ) from error
    # Not splitlines(): it also splits at characters that may stand in a name, such as U+2028.
    return [line.rstrip("\r") for line in text.split("\n")]


def _parse_table(text: str, source: str, n_classes: int | None) -> ClassTable:
    lines = text.split("\n")
    for separator in "\t,;":
        header = [title.strip().lower() for title in _cells(lines[0], separator)]
        if header.count("index") == 1:
            return _parse_columns(lines, header, separator, source, n_classes)
    return _parse_names(lines, source, n_classes)


def _cells(line: str, separator: str) -> list[str]:
    # A cell of a TSV may hold a bare quotation mark, one of a CSV is quoted for its commas.
    if separator == "\t":
        return line.split("\t")
    try:
        return next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [""])
    except csv.Error:  # longer than a cell may be
        return [line]


def _parse_columns(
    lines: Sequence[str], header: list[str], separator: str, source: str, n_classes: int | None
) -> ClassTable:
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in _cells(line, separator)]
        cells += [""] * (len(header) - len(cells))
        if len(cells) > len(header):
            raise InputError(
                f"{source}, line {number}: found {len(cells)} cells, but the header has "
                f"{len(header)}; give every column a title"
            )
        cell = cells[header.index("index")]
        if not re.fullmatch(r"[0-9]{1,9}", cell):
            raise InputError(
                f"{source}, line {number}: found index {cell!r}; expected a number from 0 on, the "
                "place of the class among the network's outputs"
            )
        if int(cell) in rows:
            raise InputError(
                f"{source}, line {number}: index {cell} appears a second time; give each "
                "class one line and put its other names in further columns"
            )
        rows[int(cell)] = cells
    n = _checked_count(rows, source, n_classes)
    columns = [
        [rows[index][column] for index in range(n)]
        for column in _alias_columns(header, list(rows.values()))
    ]
    by_class = [[cell for cell in cells if cell] for cells in zip(*columns, strict=True)]
    by_class = by_class or [[] for _ in range(n)]
    names = [cells[0] if cells else str(index) for index, cells in enumerate(by_class)]
    return table_of(names, [tuple(cells[1:]) for cells in by_class])


def _checked_count(rows: Iterable[int], source: str, n_classes: int | None) -> int:
    """How many classes there are, 0 to n-1, each with a row; InputError unless they are all."""
    found = set(rows)
    n = len(found) if n_classes is None else n_classes
    missing = list(islice(_others(range(n), found), 6))
    surplus = sorted(_others(found, range(n)))
    whole = bool(found) and found == set(range(len(found)))
    if whole and len(found) != n:
        raise _other_count(source, len(found), n)
    if surplus:
        why = "" if n_classes is None else f", because the network has {n} outputs"
        raise InputError(
            f"{source} has the index {surplus[0]}, and no line for {_shortened(missing)}; expected "
            f"indices from 0 to {n - 1}{why}"
            if missing
            else f"{source} has the index {surplus[0]}; expected 0 to {n - 1}{why}"
        )
    if missing or not found:
        raise InputError(
            f"{source} has {len(found)} of the network's {n} classes; add "
            f"{_shortened(missing) or 'a line for each class'}"
        )
    return n


def _others(items: Iterable[int], known: Iterable[int]) -> Iterator[int]:
    return (item for item in items if item not in known)


def _other_count(source: str, found: int, n_classes: int) -> InputError:
    return InputError(
        f"{source} names {found} {'class' if found == 1 else 'classes'}, but the network has "
        f"{n_classes} outputs; expected a name for each of them, pass this network's table as "
        "--class-names"
    )


def _parse_names(lines: Sequence[str], source: str, n_classes: int | None) -> ClassTable:
    names = [line.strip() for line in lines if line.strip()]
    first = re.split(r"[\t,;]", names[0]) if names else []
    header = ", ".join(map(repr, first)) or "nothing"
    # Elsewhere a name may hold commas; here it is a row of a table.
    is_table = len(first) > 1 and Path(source).suffix.lower() in (".csv", ".tsv")
    if not names or is_table or any("\t" in name for name in names):
        raise InputError(f"{source} begins with {header}; {_EXPECTED}")
    if n_classes is not None and len(names) != n_classes:
        if len(names) == n_classes + 1 or len(first) > 1:
            raise InputError(
                f"{source} begins with {header} and has {len(names)} lines for the network's "
                f"{n_classes} outputs; {_EXPECTED}"
            )
        raise _other_count(source, len(names), n_classes)
    synonyms = [tuple(part.strip() for part in name.split(",") if part.strip()) for name in names]
    return table_of(names, [parts if len(parts) > 1 else () for parts in synonyms])


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


def _shortened(items: Sequence[int], limit: int = 5) -> str:
    more = " and more" if len(items) > limit else ""
    return ", ".join(map(str, items[:limit])) + more
