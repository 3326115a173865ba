"""Which steps go row by row: those that lower the arena's peak, and no more of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

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
    """The chains that make the arena smallest, and buffers with their windows and lifetimes."""
    refused: set[tuple[int, int]] = set()
    while True:
        pieces = _Planner(steps, places, buffers, refused).best()
        chains: list[Chain] = []
        result = dict(buffers)
        failed = False
        for piece in pieces:
            if not piece.windows:
                continue
            found = chain_of(steps, piece.first, piece.last, places, buffers, piece.windows)
            if found is None:
                refused.add((piece.first, piece.last))
                failed = True
                continue
            chain, rows = found
            chains.append(chain)
            for name, b in result.items():
                if b.first <= piece.last and b.last >= piece.first:
                    result[name] = replace(
                        b, first=min(b.first, piece.first), last=max(b.last, piece.last),
                        window=rows.get(name, b.window),
                    )  # fmt: skip
        if not failed:
            return tuple(chains), result


class _Planner:
    def __init__(
        self,
        steps: Sequence[Step],
        places: Mapping[str, Place],
        buffers: Mapping[str, Buffer],
        refused: set[tuple[int, int]],
    ) -> None:
        self.steps, self.places, self.buffers = steps, places, buffers
        self.refused = refused
        self.able = [s.kernel in BY_ROWS or s.kernel == "border" for s in steps]
        self.peak_of = cache(self._peak)

    def best(self) -> tuple[_Piece, ...]:
        """All steps in pieces: of the least peak, those of the fewest steps in chains."""
        pieces = [self._ending(last) for last in range(len(self.steps))]
        peaks = [0]  # up to each step
        for some in pieces:
            peaks.append(min(max(peaks[p.first], self.peak_of(p)) for p in some))
        most = _CLOSE * peaks[-1]
        fewest: list[tuple[int, tuple[_Piece, ...]]] = [(0, ())]
        for some in pieces:
            fewest.append(
                min(
                    ((fewest[p.first][0] + p.chained, (*fewest[p.first][1], p))
                     for p in some if self.peak_of(p) <= most),
                    key=lambda way: way[0], default=(10**9, ()),
                )
            )  # fmt: skip
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
            if (first, last) in self.refused:
                continue
            if windows := self._windows(first, last):
                pieces.append(_Piece(first, last, windows))
        return pieces

    def _windows(self, first: int, last: int) -> tuple[str, ...]:
        """The buffers that only these steps use, and read."""
        found = []
        for name, b in self.buffers.items():
            inside = first <= b.first and b.last <= last
            if inside and self._rows(name) is not None:
                found.append(name)
        return tuple(found)

    def _rows(self, name: str) -> int | None:
        """About how many rows of a buffer its readers need at once."""
        return self._all_rows().get(name)

    @cache  # noqa: B019
    def _all_rows(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for step in self.steps:
            for name in step.reads:
                b = self.places[name].buffer
                found[b] = max(found.get(b, 0), reach_of(step))
        for step in self.steps:
            if step.writes in self.places and self.places[step.writes].y != 0:
                found.pop(self.places[step.writes].buffer, None)
        return found

    def _peak(self, piece: _Piece) -> int:
        total = 0
        for name, b in self.buffers.items():
            if b.first <= piece.last and b.last >= piece.first:
                rows = self._rows(name) if name in piece.windows else None
                total += b.size if rows is None else min(rows, b.rows) * b.row
        return total
