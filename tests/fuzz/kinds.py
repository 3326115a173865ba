"""What a reader is to a fuzzer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mutate import Mutator

__all__ = ["Reader"]


@dataclass(frozen=True)
class Reader:
    """A reader of bytes.

    Attributes:
        seeds: what is right, made in a folder.
        damage: seeds in, something else out.
        read: reads bytes by way of a folder that belongs to it alone.
        cost: of one execution, roughly, in seconds.
        by_bytes: share of inputs that libFuzzer changes by itself; it knows no format.
    """

    seeds: Callable[[Path], list[bytes]]
    damage: Mutator
    read: Callable[[bytes, Path], object]
    cost: float = 1e-3
    by_bytes: float = 0.5
