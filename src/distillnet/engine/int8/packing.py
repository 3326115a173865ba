"""Whole-number parameters as the kernels read them: bytes, one layer after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import Tables
from distillnet.engine.int8.fours import FOUR, in_fours
from distillnet.engine.int8.layers import Filters
from distillnet.engine.int8.quantise import Quantised, input_bytes
from distillnet.engine.steps import Program, Strip

__all__ = ["PIXELS", "Packed", "Pixels", "block_bytes", "pack", "packed_blocks"]

PIXELS = "pixels"  # the name of their table

_HEAD = 8  # bytes of a filter's bias and multiplier
_LEAST_DEPTH = 4  # channels in a block of a depthwise layer; depthwise.c has the same


@dataclass(frozen=True)
class Pixels:
    """How bytes of an image become the network's normalised input.

    Attributes:
        values: (C, 256), by channel of the network, what each byte becomes.
        reversed: whether the image has its channels the other way round.
    """

    values: NDArray[np.float32]
    reversed: bool


@dataclass(frozen=True)
class Packed:
    """A program whose strips know where their weights lie, and the places of tables by name.

    ``factors`` are those of local response norms, which are no bytes and so no weights.
    """

    program: Program
    tables: dict[str, int]
    factors: dict[str, NDArray[np.integer]]
    pixels: Pixels | None


@dataclass
class _Bytes:
    alignment: int
    parts: list[bytes] = field(default_factory=list)
    length: int = 0

    def add(self, *parts: NDArray[np.generic]) -> int:
        start = self.length
        data = b"".join(part.astype(part.dtype.newbyteorder("<")).tobytes() for part in parts)
        data += bytes(-len(data) % self.alignment)
        self.parts.append(data)
        self.length += len(data)
        return start


def pack(network: Quantised, pixels: Pixels | None = None) -> Packed:
    """Lay a network's parameters out; ``program.weights`` holds them all."""
    out = _Bytes(4 * network.block)
    tables: dict[str, int] = {}
    steps = []
    geometry = Tables(network.program)
    for step in network.program.steps:
        strips = step.strips
        if step.kernel == "depthwise":
            depth = max(_LEAST_DEPTH, network.block)
            strips = _depthwise(out, strips, network.filters[step.name], depth)
        elif step.kernel in ("conv", "conv_scores"):
            run = geometry.runs(step)[-1]
            strips = _conv(out, strips, network.filters[step.name], run, network.block)
        steps.append(replace(step, strips=strips))
    factors = {}
    for name, table in network.tables.items():
        if f"{name}:bands" in network.tables:
            factors[name] = table
        else:
            tables[name] = out.add(table.reshape(-1))
    if pixels is not None:
        step = next(step for step in network.program.steps if step.kernel == "input")
        tables[PIXELS] = out.add(input_bytes(pixels.values, step).astype(np.uint8))
    weights = np.frombuffer(b"".join(out.parts) or bytes(out.alignment), np.uint8)
    program = replace(network.program, steps=tuple(steps), weights=weights, element_bytes=1)
    return Packed(program, tables, factors, pixels)


def _blocked(values: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """(M, ...) as (blocks, count, ...), zeros at the end."""
    blocks = -(-len(values) // count)
    full = np.zeros((blocks * count, *values.shape[1:]), values.dtype)
    full[: len(values)] = values
    return full.reshape(blocks, count, *values.shape[1:])


def packed_blocks(
    filters: Filters, bias_m: NDArray[np.int32], taps_mt: NDArray[np.int8], block: int
) -> list[NDArray[np.generic]]:
    """Blocks of bias, multiplier (of scores: unit), and fours of taps by channel.

    Args:
        bias_m: with the input's zero folded in.
        taps_mt: of each filter, in fours (see ``fours``).
    """
    fours = taps_mt.reshape(len(bias_m), -1, FOUR)
    heads = filters.units if len(filters.units) else filters.multiplier_m
    parts = (_blocked(part, block) for part in (bias_m, heads, fours))
    return [
        part
        for bias, head, taps in zip(*parts, strict=True)
        for part in (bias, head, np.ascontiguousarray(taps.transpose(1, 0, 2)))
    ]


def block_bytes(taps: int, block: int) -> int:
    """Of a block of filters of so many taps, in fours."""
    return block * (_HEAD + taps)


def _conv(
    out: _Bytes, strips: Sequence[Strip], filters: Filters, run: int, block: int
) -> tuple[Strip, ...]:
    """Group by group, blocks of filters."""
    count = len(filters.bias_m)
    taps = in_fours(filters.weight_mkkc.reshape(count, -1), run)
    bias = filters.folded()
    sources = sorted({strip.source for strip in strips})
    per_group = count // len(sources)
    size = block_bytes(taps.shape[1], block)
    starts = {}
    for g, source in enumerate(sources):
        mine = slice(g * per_group, (g + 1) * per_group)
        starts[source] = out.length
        for part in packed_blocks(filters.of(mine), bias[mine], taps[mine], block):
            out.add(part)
    return tuple(
        replace(s, weights=starts[s.source] + s.channels.start % per_group // block * size)
        for s in strips
    )


def _depthwise(
    out: _Bytes, strips: Sequence[Strip], filters: Filters, depth: int
) -> tuple[Strip, ...]:
    """Blocks of bias, multiplier, and taps by channel."""
    start = out.length
    taps = filters.weight_mkkc.reshape(len(filters.bias_m), -1)
    parts = (_blocked(part, depth) for part in (filters.folded(), filters.multiplier_m, taps))
    data = [
        part
        for bias, multiplier, some in zip(*parts, strict=True)
        for part in (bias, multiplier, np.ascontiguousarray(some.T))
    ]
    out.add(*data)
    size = depth * (8 + taps.shape[1])
    return tuple(replace(s, weights=start + s.channels.start // depth * size) for s in strips)
