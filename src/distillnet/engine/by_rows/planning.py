"""Which steps go row by row: those that lower the arena's peak, and no more of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distillnet.engine.arena import alive_at_once
from distillnet.engine.by_rows.chains import BY_ROWS, chain_of, reach_of
from distillnet.engine.steps import Buffer, Chain, Place, Step

__all__ = ["with_chains"]

_LONGEST = 32  # links; chain.c has the same
_CLOSE = 1.02  # peaks that count as equal


@dataclass(frozen=True)
class _Piece:
    """Steps ``first`` to ``last``: one as it is, or a chain with these windows."""

    first: int
    last: int
    windows: tuple[str, ...] = ()

    @property
    def chained(self) -> int:
        return self.last - self.first + 1 if self.windows else 0


def with_chains(
    steps: Sequence[Step], places: Mapping[str, Place], buffers: Mapping[str, Buffer]
) -> tuple[tuple[Chain, ...], dict[str, Buffer]]:
    """The chains that make the arena smallest, and buffers with their windows and lifetimes.

    None where all of it would take no less.
    """
    chains: list[Chain] = []
    result = dict(buffers)
    for piece in _Planner(steps, places, buffers).best():
        if not piece.windows:
            continue
        chain, rows = chain_of(steps, piece.first, piece.last, places, buffers, piece.windows)
        chains.append(chain)
        for name, b in result.items():
            if b.first <= piece.last and b.last >= piece.first:
                first, last = min(b.first, piece.first), max(b.last, piece.last)
                result[name] = replace(b, first=first, last=last, window=rows.get(name, b.window))
    if alive_at_once(list(result.values())) >= alive_at_once(list(buffers.values())):
        return (), dict(buffers)
    return tuple(chains), result


class _Planner:
    def __init__(
        self,
        steps: Sequence[Step],
        places: Mapping[str, Place],
        buffers: Mapping[str, Buffer],
    ) -> None:
        self.steps, self.places, self.buffers = steps, places, buffers
        self.able = [s.kernel in BY_ROWS or s.kernel == "border" for s in steps]
        self.rows = self._rows()

    def best(self) -> tuple[_Piece, ...]:
        """All steps in pieces: of the least peak, those of the fewest steps in chains."""
        pieces = [
            {piece: self.peak_of(piece) for piece in self._ending(last)}
            for last in range(len(self.steps))
        ]
        peaks = [0]  # up to each step
        for some in pieces:
            peaks.append(min(max(peaks[p.first], peak) for p, peak in some.items()))
        most = _CLOSE * peaks[-1]
        fewest: list[tuple[float, tuple[_Piece, ...]]] = [(0, ())]  # steps in chains, and the ways
        for some in pieces:
            ways = [
                (fewest[p.first][0] + p.chained, (*fewest[p.first][1], p))
                for p, peak in some.items()
                if peak <= most
            ]
            fewest.append(min(ways, key=lambda way: way[0], default=(math.inf, ())))
        return fewest[-1][1]

    def _ending(self, last: int) -> list[_Piece]:
        """What may end with a step."""
        pieces = [_Piece(last, last)]
        if self.steps[last].kernel not in BY_ROWS:
            return pieces
        links = 1
        for first in range(last - 1, -1, -1):
            links += self.steps[first].kernel != "border"
            if not self.able[first] or links > _LONGEST:
                break
            if windows := self._windows(first, last):
                pieces.append(_Piece(first, last, windows))
        return pieces

    def _windows(self, first: int, last: int) -> tuple[str, ...]:
        """The buffers that only these steps use."""
        return tuple(
            name
            for name, b in self.buffers.items()
            if first <= b.first and b.last <= last and name in self.rows
        )

    def _rows(self) -> dict[str, int]:
        """By buffer, about how many of its rows are needed at once, where it may be a window."""
        found: dict[str, int] = {}
        for step in self.steps:
            for name in step.reads:
                b = self.places[name].buffer
                found[b] = max(found.get(b, 0), reach_of(step))
        for step in self.steps:
            place = self.places.get(step.writes)
            if place is not None and place.y != 0:
                found.pop(place.buffer, None)
        return found

    def peak_of(self, piece: _Piece) -> int:
        """What is alive in it at once, about."""
        total = 0
        for name, b in self.buffers.items():
            if b.first <= piece.last and b.last >= piece.first:
                total += min(self.rows[name], b.rows) * b.row if name in piece.windows else b.size
        return total
