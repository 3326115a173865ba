"""What a mission has of its own in a layer of whole numbers, as C."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import Tables
from distillnet.engine.int8.fours import computed_taps, in_fours, live_fours, whole_fours
from distillnet.engine.int8.layers import Filters
from distillnet.engine.int8.packing import block_bytes, packed_blocks
from distillnet.engine.int8.quantise import Quantised
from distillnet.engine.missions.source import Own, OwnTable
from distillnet.engine.spans import (
    ActiveStrip,
    apart_from_idle,
    plain_words,
    strips_of_step,
)
from distillnet.engine.steps import BLOCK, MissionBits, Step
from distillnet.engine.taps import live_segments, segment_rows

__all__ = ["InBytes", "few_words", "unit_of"]

_LEAST_UNIT = 4  # fewer would save less than their strips take of flash
_MOST_KINDS = 256  # that a byte tells apart
Whole = NDArray[np.int32]
Keep = NDArray[np.bool_]


@dataclass(frozen=True)
class InBytes:
    """What ``write_folder`` asks for of a network in whole numbers.

    Inputs that are always zero are left out, four at a time, and biases then hold the zero of
    those alone that are not. So a mission has biases of its own wherever it leaves any out.
    """

    network: Quantised

    def strips(self, writer: Tables, step: Step, keep: Keep | None) -> Sequence[ActiveStrip]:
        """Blocks that compute nothing stand apart, at the price of a strip's row."""
        if keep is not None and step.kernel != "depthwise":
            unit, run = unit_of(self.network.block), writer.runs(step)[-1]
            count = len(self.network.filters[step.name].bias_m)
            taps = in_fours(self.network.filters[step.name].weight_mkkc.reshape(count, -1), run)
            size = block_bytes(taps.shape[1], self.network.block) * unit // self.network.block
            step = replace(step, strips=apart_from_idle(step.strips, keep, unit, size))
        return strips_of_step(step, keep)

    def own(
        self, writer: Tables, step: Step, active: Sequence[ActiveStrip], mission: MissionBits
    ) -> Own:
        """Biases, filters, and which taps count."""
        if step.kernel == "depthwise":
            return Own(words_of=few_words)
        slot = str(step.slot)
        live, refit = mission.live.get(slot), mission.refits.get(slot)
        if live is None and refit is None:
            return Own(words_of=few_words)
        run = writer.runs(step)[-1]
        filters, block = self.network.filters_of(step, mission), self.network.block
        fours = None if live is None else live_fours(live, run)
        bias = filters.folded(None if live is None else computed_taps(live, run))
        refitted = refit is not None and refit.weight is not None
        segments = None
        if fours is not None:
            some = live_segments(whole_fours(writer, step), fours, packed=refitted)
            segments = segment_rows(some)
        if not refitted:
            biases = _biases(active, bias, block)
            return Own(biases=biases, segments=segments, words_of=few_words)
        data, begins, taps = _own_blocks(active, filters, bias, run, fours, block)
        return Own(OwnTable("uint8_t", data), None, begins, taps, segments, few_words)


def unit_of(block: int) -> int:
    """Channels that are skipped together where none of them is needed."""
    return max(block, _LEAST_UNIT)


def few_words(part: ActiveStrip) -> list[int]:
    """The words of a strip's bits: how many places differ in them, these, and which each place has.

    Channels that were removed in blocks make few, so a place takes a byte in place of a word for
    each 16 channels. Where that is no less, 0 and the words place by place.

    >>> from distillnet.engine.steps import Strip
    >>> strip = Strip(range(32), 0, 0)
    >>> few_words(ActiveStrip(strip, (), np.array([1, 2, 3, 4, 1, 2, 1, 2, 3, 4], np.uint16)))
    [2, 1, 2, 3, 4, 256, 0, 1]
    """
    words = plain_words(part)
    count = -(-len(part.strip.channels) // BLOCK)
    some, which = np.unique(np.reshape(words, (-1, count)), axis=0, return_inverse=True)
    which = which.reshape(-1)
    if len(some) > _MOST_KINDS or some.size + -(-len(which) // 2) >= len(words):
        return [0, *words]
    pairs = np.pad(which, (0, len(which) % 2)).astype(np.uint8).view("<u2")
    return [len(some), *some.reshape(-1).tolist(), *pairs.tolist()]


def _biases(active: Sequence[ActiveStrip], bias_m: Whole, block: int) -> OwnTable:
    """For all blocks of all strips in turn, zeros behind the last channel of each."""
    values: list[int] = []
    for part in active:
        own = bias_m[part.strip.channels.start : part.strip.channels.stop]
        values += np.pad(own, (0, -len(own) % block)).tolist()
    return OwnTable("int32_t", [_constant(v) for v in values])


def _constant(value: int) -> str:
    """A number of 32 bits; the least has no constant of its own in C."""
    return str(value) if value > -(2**31) else f"({value + 1} - 1)"


def _own_blocks(
    active: Sequence[ActiveStrip],
    filters: Filters,
    bias_m: Whole,
    run: int,
    fours: Keep | None,
    block: int,
) -> tuple[bytes, tuple[int, ...], int]:
    """Blocks for the strips that a mission computes, where each begins, and taps of a filter."""
    taps = in_fours(filters.weight_mkkc.reshape(len(bias_m), -1), run)
    taps = taps if fours is None else taps[:, fours]
    parts: list[bytes] = []
    begins, length = [], 0
    for part in active:
        begins.append(length)
        if part.spans is not None and not part.spans:
            continue
        mine = slice(part.strip.channels.start, part.strip.channels.stop)
        for values in packed_blocks(filters.of(mine), bias_m[mine], taps[mine], block):
            parts.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
        length += -(-len(part.strip.channels) // block) * block_bytes(taps.shape[1], block)
    return b"".join(parts), tuple(begins), taps.shape[1]
