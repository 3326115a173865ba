"""What the engine executes: a short list of steps over places in one arena.

Legend: C channels, H and W the sides of a map; a feature vector is a map of 1 x 1. Lengths and
offsets are counted in floats.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "Buffer",
    "Chain",
    "Halo",
    "Link",
    "MissionBits",
    "Place",
    "Program",
    "Refit",
    "Slot",
    "Step",
    "Strip",
]

BLOCK = 16  # output channels in a block of weights; base.h has the same

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Halo:
    """Rows and columns of zeros around a buffer, so that convolutions have no border to mind."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def empty(self) -> bool:
        return not (self.top or self.left or self.bottom or self.right)


@dataclass(frozen=True)
class Buffer:
    """Memory for one map (H, W, C) and its halo, alive from step ``first`` to step ``last``.

    Attributes:
        window: how many of its rows, those of the halo included, are in memory at once; None: all.
    """

    name: str
    shape: tuple[int, int, int]  # (C, H, W), as everywhere in the graph
    halo: Halo
    first: int = 0
    last: int = 0
    window: int | None = None

    @property
    def row(self) -> int:
        """Floats from one row to the next."""
        return (self.halo.left + self.shape[2] + self.halo.right) * self.shape[0]

    @property
    def rows(self) -> int:
        """With those of the halo."""
        return self.halo.top + self.shape[1] + self.halo.bottom

    @property
    def size(self) -> int:
        return (self.rows if self.window is None else self.window) * self.row


@dataclass(frozen=True)
class Place:
    """Where a value (C, H, W) lies: some channels of a buffer, from row ``y`` and column ``x``.

    Rows and columns before 0 are in the halo: a value padded with zeros.
    """

    buffer: str
    shape: tuple[int, int, int]
    channel: int = 0
    y: int = 0
    x: int = 0


@dataclass(frozen=True)
class Strip:
    """Channels of a layer's output that are computed together, from up to four blocks of weights.

    ``source`` is the first channel of the input that they read, ``weights`` where the blocks lie.
    """

    channels: range
    source: int
    weights: int


@dataclass(frozen=True)
class Step:
    """One call of a kernel: ``reads`` values, writes one."""

    kernel: str
    name: str
    reads: tuple[str, ...]
    writes: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    strips: tuple[Strip, ...] = ()
    slot: str | None = None


@dataclass(frozen=True)
class Slot:
    """A layer's output that a mission may mask: keep maps are bool (C, H, W)."""

    name: str
    step: int
    shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Refit:
    """What a mission computes a layer with in place of the shared weights, in the program's order.

    Attributes:
        bias: (M,).
        weight: (M, taps), taps as the kernels read them, columns of dead inputs included; None
            where the shared weights stay.
    """

    bias: Floats
    weight: Floats | None = None


@dataclass(frozen=True, eq=False)
class MissionBits:
    """A mission as the engine sees it.

    Attributes:
        keep: by slot, bool (C, H, W); a slot without one is computed whole.
        outputs: positions of its scores among those of the program.
        classes: their names.
        live: by slot of a convolution, bool (taps,): which of its inputs are not always zero.
        refits: by slot, what is not of the shared weights.
    """

    name: str
    keep: Mapping[str, NDArray[np.bool_]]
    outputs: tuple[int, ...]
    classes: tuple[str, ...]
    live: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    refits: Mapping[str, Refit] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A step of a chain. Row y of its output takes rows ``y * stride - before`` and ``reach`` - 1
    below of the buffer that it reads, as far as they are from ``least`` to ``most`` - 1.

    Attributes:
        step: its position in the programme.
        rows: of its output.
        border: rows of the halo below that it also writes: the first writer of a window does.
        reads: the window that it reads; None where it reads whole maps, or none.
        writes: the window that it writes; None where its output is whole.
        needs: links before it, by position, that write what it reads.
    """

    step: int
    rows: int
    border: int
    reads: str | None
    writes: str | None
    stride: int
    before: int
    reach: int
    least: int
    most: int
    needs: tuple[int, ...]

    def rows_read(self, y: int) -> tuple[int, int]:
        """The first row that row ``y`` takes, and the one after the last."""
        first = y * self.stride - self.before
        return max(first, self.least), min(first + self.reach, self.most)


@dataclass(frozen=True)
class Chain:
    """Steps that are carried out by turns, row by row, so that what lies between is never whole.

    Attributes:
        first, last: its steps in the programme.
        windows: the buffers of which only some rows are in memory.
    """

    first: int
    last: int
    links: tuple[Link, ...]
    windows: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A network ready to be written as C.

    Attributes:
        steps: in the order of execution.
        places: where each value lies.
        buffers: by name.
        offsets: of each buffer in the arena.
        weights: all parameters.
        slots: what missions may mask, by name.
        element_bytes: of a number in the arena, in which lengths and offsets are counted.
        chains: steps that are carried out row by row.
    """

    steps: tuple[Step, ...]
    places: Mapping[str, Place]
    buffers: Mapping[str, Buffer]
    offsets: Mapping[str, int]
    weights: Floats | NDArray[np.uint8]
    slots: Mapping[str, Slot]
    input: str
    output: str
    arena_floats: int
    least_floats: int  # the largest sum of buffers alive at once
    element_bytes: int = 4
    chains: tuple[Chain, ...] = ()

    @property
    def arena_bytes(self) -> int:
        return -(-self.element_bytes * self.arena_floats // 4) * 4
