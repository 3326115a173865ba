"""Weights as the kernels read them, one after the other in one array."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.steps import BLOCK, Strip

__all__ = ["Store", "Weights", "blocks_at_once"]

Floats = NDArray[np.float32]
_FEW_PLACES = 4


def blocks_at_once(places: int, blocks: int) -> list[int]:
    """How many blocks of channels the kernel computes together, for a map of so many places.

    On AVX-512 a tile holds up to 14 places of two blocks, 9 of three or 4 of four: wherever there
    are enough places two, so that all registers are used. Other targets take blocks one by one.

    >>> blocks_at_once(56, 5), blocks_at_once(1, 5), blocks_at_once(49, 1)
    ([2, 3], [4, 1], [1])
    """
    most = 4 if places <= _FEW_PLACES else 2
    groups = [most] * (blocks // most)
    rest = blocks % most
    if rest == 1 and most == 2 and groups:
        groups[-1] = 3  # rather than a block alone, which would use half of the sums
    elif rest:
        groups.append(rest)
    return groups


class Store(Protocol):
    """Where a lowering puts parameters; numbers it gives back stand in the steps."""

    def add(self, values: NDArray[np.floating]) -> int: ...

    def add_filters(self, weight_mkkc: NDArray[np.floating], bias: NDArray[np.floating]) -> int: ...

    def strips(
        self,
        weight_mkkc: NDArray[np.floating],
        bias: NDArray[np.floating],
        groups: int,
        places: int,
    ) -> tuple[Strip, ...]: ...

    def array(self) -> Floats: ...


@dataclass
class Weights:
    """An array that grows."""

    parts: list[Floats] = field(default_factory=list)
    length: int = 0

    def add(self, values: NDArray[np.floating]) -> int:
        """Append values, with zeros up to a whole block and beyond; where they begin."""
        flat = np.asarray(values, np.float32).reshape(-1)
        start = self.length
        # Kernels read up to a block beyond the last channel.
        room = -(-len(flat) // BLOCK) * BLOCK + (BLOCK if len(flat) % BLOCK else 0)
        self.parts.append(np.pad(flat, (0, room - len(flat))))
        self.length += room
        return start

    def add_filters(self, weight_mkkc: NDArray[np.floating], bias: NDArray[np.floating]) -> int:
        """Append filters (M, taps...) in blocks: bias[BLOCK], then [tap][BLOCK], zeros at the end.

        >>> weights = Weights()
        >>> weights.add_filters(np.ones((17, 3)), np.zeros(17)), weights.length
        (0, 128)
        """
        count = len(bias)
        blocks = -(-count // BLOCK)
        flat = np.concatenate([bias[:, None], weight_mkkc.reshape(count, -1)], 1)
        full = np.zeros((blocks * BLOCK, flat.shape[1]), np.float32)
        full[:count] = flat
        packed = full.reshape(blocks, BLOCK, -1).transpose(0, 2, 1)
        return self.add(packed)

    def strips(
        self,
        weight_mkkc: NDArray[np.floating],
        bias: NDArray[np.floating],
        groups: int,
        places: int,
    ) -> tuple[Strip, ...]:
        """Append a convolution's filters group by group; the strips for maps of so many places."""
        count, taps = len(bias) // groups, weight_mkkc[0].size
        source = weight_mkkc.shape[-1]
        result = []
        for g in range(groups):
            mine = slice(g * count, (g + 1) * count)
            start = self.add_filters(weight_mkkc[mine], bias[mine])
            first = 0
            for blocks in blocks_at_once(places, -(-count // BLOCK)):
                end = min(first + blocks * BLOCK, count)
                at = start + first // BLOCK * (taps + 1) * BLOCK
                channels = range(g * count + first, g * count + end)
                result.append(Strip(channels, g * source, at))
                first = end
        return tuple(result)

    def array(self) -> Floats:
        return np.concatenate([*self.parts, np.zeros(BLOCK, np.float32)])
