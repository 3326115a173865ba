"""Taps as the kernels of whole numbers take them: four at once, of inputs that lie side by side.

Runs of taps that lie side by side are padded to fours, so a mission leaves out four taps or none.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import Tables
from distillnet.engine.steps import Step
from distillnet.engine.taps import Segment, whole_segments

__all__ = ["FOUR", "computed_taps", "in_fours", "live_fours", "whole_fours"]

Keep = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)
FOUR = 4


def whole_fours(writer: Tables, step: Step) -> tuple[Segment, ...]:
    """All taps of a convolution, counted with those that pad each run."""
    rows, row_step, segments, segment_step, run = writer.runs(step)
    return whole_segments(rows, row_step, segments, segment_step, run + -run % FOUR)


def in_fours(values_mt: NDArray[_T], run: int) -> NDArray[_T]:
    """Filters (M, taps), in runs of so many, with zeros up to fours behind each run.

    >>> in_fours(np.ones((1, 6), np.int8), 3).tolist()
    [[1, 1, 1, 0, 1, 1, 1, 0]]
    """
    runs = values_mt.reshape(len(values_mt), -1, run)
    return np.pad(runs, ((0, 0), (0, 0), (0, -run % FOUR))).reshape(len(values_mt), -1)


def live_fours(live: Keep, run: int) -> Keep:
    """The padded taps that are computed where those of ``live`` (taps,) count.

    >>> live_fours(np.array([0, 0, 0, 0, 0, 1, 0], bool), 7).tolist()
    [False, False, False, False, True, True, True, True]
    """
    fours = in_fours(live[None], run).reshape(-1, FOUR).any(1)
    return np.repeat(fours, FOUR)


def computed_taps(live: Keep, run: int) -> Keep:
    """The same of the taps that are there (taps,)."""
    padded = live_fours(live, run).reshape(-1, run + -run % FOUR)
    found: Keep = padded[:, :run].reshape(-1)
    return found
