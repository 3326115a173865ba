"""What of a layer's output a mission needs, as strips of channels and spans of places.

A bitmap is fixed when the mission is exported, so nothing is decided while the network runs: a
strip's spans are computed, all else of it is zero. Since tiles gather their places from any spans,
skipping pays from the first place: where 1 % are missing, one by one, convolutions take 0.98 of the
time of whole maps (benchmarks/engine.py spans). So a layer is dense only where nothing is missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.steps import BLOCK, Program, Step, Strip

__all__ = [
    "ActiveStrip",
    "Span",
    "active_strips",
    "apart_from_idle",
    "bit_words",
    "computed_macs",
    "gap_of",
    "plain_words",
    "strip_rows",
    "strips_of_step",
]

Keep = NDArray[np.bool_]
_WHOLE = 0xFFFF

# Depthwise kernels compute four places of a row at once, so short gaps cost as much as they save;
# convolutions gather any places.
_DEPTHWISE_GAP = 3


@dataclass(frozen=True)
class Span:
    """Places x0 to x1 of row y."""

    y: int
    x0: int
    x1: int


@dataclass(frozen=True)
class ActiveStrip:
    """A strip with what is computed of it.

    Attributes:
        spans: None where all of the map is.
        bits: for each place of the spans and each block of the strip, a word with a bit for each
            channel, None where all channels are needed at all of these places.
    """

    strip: Strip
    spans: tuple[Span, ...] | None = None
    bits: NDArray[np.uint16] | None = None

    def places(self, size: int) -> int:
        """How many places are computed, of ``size`` in all."""
        return size if self.spans is None else sum(span.x1 - span.x0 for span in self.spans)


def bit_words(keep_chw: Keep) -> NDArray[np.uint16]:
    """Keep maps of some channels as words (H, W, blocks), bit i for channel i of a block.

    Channels beyond the last count as kept.

    >>> bit_words(np.array([[[True]], [[False]], [[True]]]))[0, 0].tolist() == [0xfffd]
    True
    """
    channels, height, width = keep_chw.shape
    blocks = -(-channels // BLOCK)
    full = np.ones((blocks * BLOCK, height, width), bool)
    full[:channels] = keep_chw
    weights = (1 << np.arange(BLOCK)).astype(np.uint32)
    words = np.einsum("bihw,i->hwb", full.reshape(blocks, BLOCK, height, width), weights)
    return words.astype(np.uint16)


def _spans(active_hw: Keep, close: int) -> tuple[Span, ...]:
    """Runs of active places, row by row; gaps of at most ``close`` places are computed, too."""
    spans = []
    for y, row in enumerate(active_hw):
        at = np.flatnonzero(row)
        if not len(at):
            continue
        breaks = np.flatnonzero(np.diff(at) > close + 1)
        starts = at[np.r_[0, breaks + 1]]
        ends = at[np.r_[breaks, len(at) - 1]]
        spans += [Span(y, int(a), int(b) + 1) for a, b in zip(starts, ends, strict=True)]
    return tuple(spans)


def active_strips(
    strips: Sequence[Strip], keep_chw: Keep, close: int = 0
) -> tuple[ActiveStrip, ...]:
    """The strips of a layer under a mission's keep map (C, H, W)."""
    result = []
    for strip in strips:
        keep: Keep = keep_chw[strip.channels.start : strip.channels.stop]
        if keep.all():
            result.append(ActiveStrip(strip))
            continue
        spans = _spans(np.logical_or.reduce(keep), close)
        words = bit_words(keep)
        computed = [words[s.y, s.x0 : s.x1].reshape(-1) for s in spans]
        bits = np.concatenate(computed) if computed else np.zeros(0, np.uint16)
        whole = bool((bits == _WHOLE).all())
        result.append(ActiveStrip(strip, spans, None if whole else bits))
    return tuple(result)


def strips_of_step(step: Step, keep_chw: Keep | None) -> tuple[ActiveStrip, ...]:
    """The strips of a convolution under a mission's keep map; all of it where there is none."""
    if keep_chw is None or keep_chw.all():
        return tuple(ActiveStrip(strip) for strip in step.strips)
    return active_strips(step.strips, keep_chw, gap_of(step.kernel))


def apart_from_idle(
    strips: Sequence[Strip], keep_chw: Keep, unit: int, weights: int
) -> tuple[Strip, ...]:
    """Strips in parts, so that channels that compute nothing do not share one with others.

    Args:
        unit: so many channels stay together.
        weights: from those of one unit to the next's.

    >>> keep = np.array([0, 0, 1, 1, 0, 0, 1], bool).reshape(-1, 1, 1)
    >>> apart_from_idle([Strip(range(7), 0, 50)], keep, 4, 10) == (
    ...     Strip(range(7), 0, 50),)
    True
    >>> [s.channels for s in apart_from_idle([Strip(range(7), 0, 50)], keep, 2, 10)]
    [range(0, 2), range(2, 4), range(4, 6), range(6, 7)]
    """
    parts: list[Strip] = []
    for strip in strips:
        first, last = strip.channels.start, strip.channels.stop
        starts = range(first, last, unit)
        idle = [not keep_chw[at : min(at + unit, last)].any() for at in starts]
        begins = [0, *(i for i in range(1, len(idle)) if idle[i] != idle[i - 1])]
        for i, end in zip(begins, [*begins[1:], len(idle)], strict=True):
            channels = range(starts[i], min(first + end * unit, last))
            parts.append(Strip(channels, strip.source, strip.weights + i * weights))
    return tuple(parts)


def gap_of(kernel: str) -> int:
    """Gaps of how many places a kernel computes rather than skips."""
    return _DEPTHWISE_GAP * (kernel == "depthwise")


def computed_macs(
    program: Program,
    keep: Mapping[str, Keep],
    live: Mapping[str, Keep] | None = None,
    unit: int | None = None,
) -> int:
    """Multiply-adds that the C code carries out for a mission, by slot its keep map (C, H, W).

    Whole blocks of channels at all places that any channel of a strip needs, and of each the taps
    that are ``live``: what its time follows.

    Args:
        unit: so many channels of a strip are skipped where none is needed; None: whole strips.
    """
    total = 0
    for step in program.steps:
        if step.kernel not in ("conv", "conv_scores", "depthwise"):
            continue
        source = 1 if step.kernel == "depthwise" else step.settings["source"]
        taps = math.prod(step.settings["kernel"]) * source
        if live is not None and step.slot is not None and step.slot in live:
            taps = int(live[step.slot].sum())
        size = math.prod(program.places[step.writes].shape[1:])
        map_ = keep.get(step.slot or "")
        if unit is not None and map_ is not None and step.kernel != "depthwise":
            step = replace(step, strips=apart_from_idle(step.strips, map_, unit, 0))
        for part in strips_of_step(step, map_):
            count = min(unit or BLOCK, BLOCK)
            channels = -(-len(part.strip.channels) // count) * count
            total += part.places(size) * channels * taps
    return total


def plain_words(part: ActiveStrip) -> list[int]:
    """The words of a strip's bits as they are, place by place."""
    assert part.bits is not None
    words: list[int] = part.bits.tolist()
    return words


def strip_rows(
    active: Sequence[ActiveStrip],
    size: int,
    own: Sequence[int] | None = None,
    words_of: Callable[[ActiveStrip], list[int]] = plain_words,
) -> tuple[list[str], list[str], list[int]]:
    """Rows of a layer's strips, of its spans, and the words of its bits; ``size`` places in all.

    Args:
        own: where each strip's weights begin that are not the shared ones.
        words_of: a strip's bits as C has them.
    """
    strips: list[str] = []
    spans: list[str] = []
    bits: list[int] = []
    for i, part in enumerate(active):
        s = part.strip
        first, count, words = -1, 0, -1
        if part.spans is not None:
            first, count = len(spans), len(part.spans)
            spans += [f"{{{p.y}, {p.x0}, {p.x1}}}" for p in part.spans]
            if part.bits is not None:
                words = len(bits)
                bits += words_of(part)
        strips.append(
            f"{{{s.weights if own is None else own[i]}, {s.source}, {s.channels.start}, "
            f"{len(s.channels)}, {part.places(size)}, {first}, {count}, {words}}}"
        )
    return strips, spans, bits
