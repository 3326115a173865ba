"""Where buffers lie in the arena: those that are never alive together may share memory."""

import random
from collections.abc import Callable, Sequence

from distillnet.engine.steps import BLOCK, Buffer

__all__ = ["alive_at_once", "plan_arena"]

_ALIGNMENT = 16  # floats: a cache line
_TRIES, _GOOD_ENOUGH = 500, 1.005


def _room(buffer: Buffer) -> int:
    return -(-buffer.size // _ALIGNMENT) * _ALIGNMENT


def alive_at_once(buffers: Sequence[Buffer]) -> int:
    """The largest sum of buffers that are alive at one step, in floats: no arena is smaller."""
    steps = {buffer.first for buffer in buffers}
    return max(sum(b.size for b in buffers if b.first <= step <= b.last) for step in steps or {0})


def plan_arena(buffers: Sequence[Buffer]) -> tuple[dict[str, int], int]:
    """Offsets by buffer, and the arena's length in floats, with room to read beyond its end.

    Buffers are placed one by one into the smallest gap that holds them among those alive with
    them. The best of a few orders is taken, and changed here and there while that helps.

    >>> from distillnet.engine.steps import Halo
    >>> a, b, c = (Buffer(n, (16, 1, 1), Halo(), i, i + 1) for i, n in enumerate("abc"))
    >>> plan_arena([a, b, c])
    ({'a': 0, 'b': 16, 'c': 0}, 48)
    """
    orders: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda b: (-b.size, b.first),
        lambda b: (b.first, -b.size),
        lambda b: (-b.last, -b.size),
        lambda b: (b.first - b.last, -b.size),
        lambda b: (-b.size * (b.last - b.first + 1), b.first),
    )
    best = min((sorted(buffers, key=order) for order in orders), key=lambda o: _place(o)[1])
    length, least = _place(best)[1], alive_at_once(buffers)
    generator = random.Random(0)
    for _ in range(_TRIES):
        if length <= _GOOD_ENOUGH * least + _ALIGNMENT or len(buffers) < 2:
            break
        other = list(best)
        i, j = generator.sample(range(len(other)), 2)
        other.insert(j, other.pop(i))
        if (tried := _place(other)[1]) <= length:
            best, length = other, tried
    offsets, length = _place(best)
    return {b.name: offsets[b.name] for b in buffers}, length + BLOCK


def _place(order: Sequence[Buffer]) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    placed: list[Buffer] = []
    length = 0
    for buffer in order:
        beside = sorted(
            (offsets[b.name], offsets[b.name] + _room(b))
            for b in placed
            if b.first <= buffer.last and buffer.first <= b.last
        )
        best, tightest, end = None, 0, 0
        for start, stop in beside:
            gap = start - end
            if gap >= _room(buffer) and (best is None or gap < tightest):
                best, tightest = end, gap
            end = max(end, stop)
        offsets[buffer.name] = end if best is None else best
        length = max(length, offsets[buffer.name] + _room(buffer))
        placed.append(buffer)
    return offsets, length
