"""Matrices of small whole numbers as symbols in contexts: how large the next one is likely to be.

Most weights of a packed network are 0 or near it, but not alike in every row and column. A row
tells its mean size in half octaves (its *class*), a column is judged by the rows before. What both
expect of a number picks the table it is coded with; all matrices of a file share the tables.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BOUNDS",
    "CAP",
    "CLASSES",
    "CONTEXTS",
    "FIRST",
    "LEAST_CLASS",
    "MEMORY",
    "MOST",
    "SCALE",
    "SYMBOLS",
    "UNIT",
    "WIDTH",
    "Coder",
    "Extra",
    "code",
    "join",
    "row_classes",
    "split",
]

Ints = NDArray[np.int64]

# Sizes up to 15 have a symbol of their own for each sign, larger ones share one with half of
# their octave, and say which they are in bits of their own.
_OWN = 15
_OCTAVES = range(4, 16)
MOST = 2**16 - 1  # the largest size
SYMBOLS = 1 + 2 * (_OWN + 2 * len(_OCTAVES))
CONTEXTS = 24
CLASSES = 32
LEAST_CLASS = 10  # of 2^0
UNIT = 256
# Integers by integer arithmetic, so that they are the same everywhere: 256 * 2^(k/2).
SCALE = np.array([math.isqrt(UNIT * UNIT << k) for k in range(CLASSES)], np.int64)
BOUNDS = np.array([math.isqrt(64 << k) for k in range(1, CONTEXTS)], np.int64)
CAP = 64  # a size beyond it tells no more of its column
MEMORY = 8  # rows


class Coder(Protocol):
    """An Encoder, a Decoder or a counter, seen from here: symbols of one row, known or not."""

    def row(self, contexts: Ints, symbols: Ints | None) -> Ints:
        """The symbols (N,), in the contexts (N,)."""
        ...


@dataclass(frozen=True)
class Extra:
    """The bits (B,) of sizes that share a symbol, and how many of them were read."""

    bits: NDArray[np.uint8]
    used: int = 0


def row_classes(levels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The class of each row of a matrix (M, D)."""
    mean = np.abs(levels.astype(np.int64)).mean(1) if levels.size else np.zeros(len(levels))
    half_octaves = np.round(2 * np.log2(np.maximum(mean, 2.0**-5)))
    return np.clip(half_octaves + LEAST_CLASS, 0, CLASSES - 1).astype(np.uint8)


def code(
    coder: Coder, classes: NDArray[np.uint8], columns: int, levels: NDArray[np.integer] | None
) -> Ints:
    """Send a matrix through a coder, row by row, or get its symbols (M, D) out of one.

    Args:
        classes: of the rows (M,).
        levels: None to decode; then extra bits are still missing in what comes back.
    """
    rows = []
    expected = np.full(columns, UNIT, np.int64)  # sizes by column, in units of the row's class
    symbols = None if levels is None else split(levels.astype(np.int64))[0]
    for i, class_ in enumerate(classes):
        scale = int(SCALE[class_])
        contexts = np.searchsorted(BOUNDS, (expected * scale) >> 13, side="right")
        row = coder.row(contexts, None if symbols is None else symbols[i])
        rows.append(row)
        sizes = np.minimum(_LEAST_SIZE[row], CAP)
        seen = sizes * (UNIT * UNIT << LEAST_CLASS // 2) // scale
        expected += (seen - expected) // min(i + 2, MEMORY)
        np.maximum(expected, 1, out=expected)
    return np.stack(rows) if rows else np.zeros((0, columns), np.int64)


def split(levels: Ints) -> tuple[Ints, NDArray[np.uint8]]:
    """The symbols of levels, of the same shape, and the bits that they leave open, in order."""
    size = np.abs(levels)
    if levels.size and size.max() > MOST:
        raise ValueError(f"found the level {size.max()}, expected at most {MOST}")
    class_ = np.searchsorted(FIRST, size, side="right") - 1
    symbols = np.where(class_ == 0, 0, 2 * class_ - (levels > 0))
    width = WIDTH[class_].ravel()
    rest = (size - FIRST[class_]).ravel()[width > 0]
    return symbols, _bits_of(rest, width[width > 0])


def join(symbols: Ints, extra: Extra) -> tuple[Ints, Extra]:
    """The levels of symbols, with the next of the bits that these leave open; what is left."""
    class_ = (symbols + 1) // 2
    width = WIDTH[class_]
    wide = width > 0
    count = int(width.sum())
    bits = extra.bits[extra.used : extra.used + count]
    if len(bits) != count:
        raise ValueError("bits of large numbers are missing")
    size = FIRST[class_]
    size[wide] += _numbers_of(bits, width[wide])
    return np.where(symbols % 2 == 1, size, -size), Extra(extra.bits, extra.used + count)


def _bits_of(numbers: Ints, width: Ints) -> NDArray[np.uint8]:
    """Binary digits of numbers, the highest first, each of its width."""
    owner = np.repeat(np.arange(len(numbers)), width)
    ends = np.cumsum(width)
    place = ends[owner] - 1 - np.arange(len(owner)) if len(owner) else owner
    return ((numbers[owner] >> place) & 1).astype(np.uint8)


def _numbers_of(bits: NDArray[np.uint8], width: Ints) -> Ints:
    owner = np.repeat(np.arange(len(width)), width)
    place = np.cumsum(width)[owner] - 1 - np.arange(len(owner)) if len(owner) else owner
    numbers = np.zeros(len(width), np.int64)
    np.add.at(numbers, owner, bits.astype(np.int64) << place)
    return numbers


def _classes_of_size() -> tuple[Ints, Ints]:
    """The least size of each class, and how many bits tell which of its sizes it is."""
    first, width = [*range(_OWN + 1)], [0] * (_OWN + 1)
    for octave in _OCTAVES:
        first += [1 << octave, 3 << octave - 1]
        width += [octave - 1] * 2
    return np.array(first, np.int64), np.array(width, np.int64)


FIRST, WIDTH = _classes_of_size()
_LEAST_SIZE = FIRST[(np.arange(SYMBOLS) + 1) // 2]  # of each symbol
