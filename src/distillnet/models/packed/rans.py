"""A range coder with many lanes: symbols to 16-bit words at the cost of their entropy, and back.

Asymmetric numeral systems (J. Duda, arXiv:1311.2540): a state of 32 bits holds what was coded, last
in, first out. Here many states take turns, so that numpy codes a lane each at a time; they share
one stream of words. Integers alone, so that every machine decodes the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISION", "Decoder", "Encoder", "Stream", "Tables", "tables_of"]

PRECISION = 12  # bits of a frequency
_TOTAL = 1 << PRECISION
_LOW = 1 << 16  # states lie between this and 2^32 after each step

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """Frequencies of symbols (C, S) in each of C contexts: of 2^12, and all in each row.

    Raises:
        ValueError: they are not, or a row holds none.
    """

    frequency: Ints

    def __post_init__(self) -> None:
        f = self.frequency
        if f.ndim != 2 or (f < 0).any() or (f.sum(1) != _TOTAL).any():
            raise ValueError(f"frequencies of a context have to be {_TOTAL} together")

    @cached_property
    def start(self) -> Ints:
        """Of each symbol's share of the range (C, S)."""
        return np.cumsum(self.frequency, 1) - self.frequency

    @cached_property
    def symbol(self) -> Ints:
        """Of each place in the range (C, 2^12)."""
        symbols = np.arange(self.frequency.shape[1])
        return np.stack([np.repeat(symbols, row) for row in self.frequency])


def tables_of(counts: Ints) -> Tables:
    """The tables under which symbols that were counted (C, S) take least; none that occurs has 0.

    >>> tables_of(np.array([[3, 1, 0]])).frequency
    array([[3072, 1024,    0]])
    """
    rows = []
    for row in np.atleast_2d(counts):
        if not row.any():
            row = np.eye(1, len(row), dtype=np.int64)[0]
        share = row * _TOTAL // row.sum()
        share[(row > 0) & (share == 0)] = 1
        share[share.argmax()] += _TOTAL - share.sum()
        rows.append(share)
    return Tables(np.array(rows, np.int64))


@dataclass(frozen=True)
class Stream:
    """What was coded: the states of all lanes (L,) and words (W,)."""

    states: NDArray[np.uint32]
    words: NDArray[np.uint16]


class Encoder:
    """Takes symbols in the order in which they will be decoded."""

    def __init__(self, tables: Tables, lanes: int) -> None:
        self._tables, self._lanes = tables, lanes
        self._steps: list[tuple[Ints, Ints]] = []

    def put(self, symbols: Ints, contexts: Ints) -> None:
        """Add symbols (N,), each in a context (N,)."""
        frequency = self._tables.frequency[contexts, symbols]
        start = self._tables.start[contexts, symbols]
        for at in range(0, len(symbols), self._lanes):
            part = slice(at, at + self._lanes)
            self._steps.append((frequency[part], start[part]))

    def finish(self) -> Stream:
        """All that was put, coded from the last to the first."""
        states = np.full(self._lanes, _LOW, np.int64)
        words: list[Ints] = []
        for frequency, start in reversed(self._steps):
            x = states[: len(frequency)]
            full = x >= frequency << (32 - PRECISION)
            words.append(x[full] & 0xFFFF)
            x = np.where(full, x >> 16, x)
            high, rest = np.divmod(x, frequency)
            states[: len(frequency)] = (high << PRECISION) + rest + start
        joined = np.concatenate([np.zeros(0, np.int64), *reversed(words)])
        return Stream(states.astype(np.uint32), joined.astype(np.uint16))


class Decoder:
    """Gives back the symbols of a stream; ValueError where it is not what an Encoder made."""

    def __init__(self, tables: Tables, stream: Stream) -> None:
        self._frequency, self._start = tables.frequency, tables.start
        self._symbol = tables.symbol
        self._states = stream.states.astype(np.int64)
        self._words, self._at = stream.words.astype(np.int64), 0
        if (self._states < _LOW).any() or not len(self._states):
            raise ValueError("a lane begins where none can end")

    def take(self, contexts: Ints) -> Ints:
        """The next symbols (N,), each in a context (N,)."""
        lanes = len(self._states)
        parts = [self._step(contexts[at : at + lanes]) for at in range(0, len(contexts), lanes)]
        return _joined(parts)

    def _step(self, contexts: Ints) -> Ints:
        x = self._states[: len(contexts)]
        place = x & (_TOTAL - 1)
        symbols = self._symbol[contexts, place]
        x = self._frequency[contexts, symbols] * (x >> PRECISION) + place
        x -= self._start[contexts, symbols]
        empty = x < _LOW
        words = self._words[self._at : self._at + np.count_nonzero(empty)]
        if len(words) != np.count_nonzero(empty):
            raise ValueError("the words end before the symbols do")
        x[empty] = (x[empty] << 16) | words
        self._at += len(words)
        self._states[: len(contexts)] = x
        return symbols

    def close(self) -> None:
        """Check that nothing is left: all is as it was before the first symbol was coded."""
        if self._at != len(self._words) or (self._states != _LOW).any():
            raise ValueError("words are left behind the last symbol")


def _joined(parts: Sequence[Ints]) -> Ints:
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int64), *parts])
