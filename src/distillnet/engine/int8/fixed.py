"""Bytes for numbers, and products with fractions in whole numbers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HIGHEST", "Scale", "byte_of", "in_high_word", "shifted"]

HIGHEST = 255  # of a byte
_WORD = 31  # bits of a multiplier without its sign
_MOST_SHIFT = 30


@dataclass(frozen=True)
class Scale:
    """How a byte q stands for a number: ``step * (q - zero)``, so that 0 is exact.

    >>> Scale.of(-51.0, 204.0)
    Scale(step=1.0, zero=51)
    """

    step: float
    zero: int

    @classmethod
    def of(cls, least: float, most: float) -> "Scale":
        """The bytes 0 to 255 from ``least`` to ``most``, and 0 wherever it is."""
        least, most = min(least, 0.0), max(most, 0.0)
        step = (most - least) / HIGHEST or 1.0
        return cls(step, round(-least / step))

    def at_least(self, step: float) -> "Scale":
        """The same with steps that are no finer."""
        if step <= self.step:
            return self
        return Scale(step, min(HIGHEST, round(self.zero * self.step / step)))


def byte_of(value: float, scale: Scale) -> int:
    """The byte next to a number, from 0 to 255."""
    if math.isinf(value):
        return HIGHEST if value > 0 else 0
    return min(HIGHEST, max(0, math.floor(value / scale.step + 0.5) + scale.zero))


def in_high_word(factors: NDArray[np.float64]) -> tuple[NDArray[np.int32], int]:
    """Multipliers m and a shift r >= 1, so that ``m / 2**(32 + r)`` is each factor.

    Factors must be below 1/4. A sum a becomes ``((a * m >> 32) + 2**(r - 1)) >> r``: the upper word
    of a product is what processors have, and the result is the product, rounded half up.

    >>> in_high_word(np.array([0.1, 0.05]))
    (array([1717986918,  858993459], dtype=int32), 2)
    """
    largest = float(factors.max(initial=0.0))
    assert largest < 0.25, "factors of 1/4 and more do not fit"
    shift = 1
    while shift < _MOST_SHIFT and round(largest * 2.0 ** (33 + shift)) < 2**_WORD:
        shift += 1
    return np.rint(factors * 2.0 ** (32 + shift)).astype(np.int32), shift


def shifted(factors: NDArray[np.float64], bits: int) -> tuple[NDArray[np.int32], int]:
    """Multipliers of at most so many bits and a shift s, so that ``m / 2**s`` is each factor.

    >>> shifted(np.array([0.75, -0.1]), 8)
    (array([192, -26], dtype=int32), 8)
    """
    largest = float(np.abs(factors).max(initial=0.0))
    shift = _MOST_SHIFT
    while shift > 0 and round(largest * 2.0**shift) >= 2**bits:
        shift -= 1
    whole = np.rint(factors * 2.0**shift).clip(-(2**bits) + 1, 2**bits - 1)
    return whole.astype(np.int32), shift
