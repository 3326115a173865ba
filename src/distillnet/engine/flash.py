"""Weights that lie packed in flash and are decoded into memory when a device starts.

What ``models.packed`` makes small are a layer's levels, row by row. The kernels read filters in
blocks of channels, tap by tap; so levels are coded anew, columns in the order of the taps, and each
matrix tells where in the array its blocks begin. All that no matrix covers, biases for instance,
follows as floats and runs of zeros. The decoder (``templates/weights_packed.c``) gives the array
bit by bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import distillnet.models.packed.levels as coding
from distillnet.engine.literals import byte_text, c_array
from distillnet.engine.steps import BLOCK
from distillnet.models.packed import Shared
from distillnet.models.packed.rans import Encoder, tables_of

__all__ = ["Flash", "flash_of", "flash_source"]

Floats = NDArray[np.float32]
_Ints = NDArray[np.int64]

_LANES = 64
# Behind the contexts of levels: what rows, columns and the rows' classes differ by.
_ROWS, _COLUMNS, _CLASSES = range(coding.CONTEXTS, coding.CONTEXTS + 3)
_CONTEXTS = coding.CONTEXTS + 3
_MOST_RUN = 2**16 - 1


@dataclass(frozen=True)
class _Matrix:
    """A layer's filters as levels, columns in the order of the taps, and where its blocks begin."""

    at: int
    levels: _Ints
    rows: NDArray[np.int8]
    columns: NDArray[np.int8]
    codebook: Floats


@dataclass(frozen=True)
class Flash:
    """An array of weights, packed: its parts, one behind the other.

    Attributes:
        matrices: rows of (at, rows, columns, codebook, n_codebook).
        covered: how many of the numbers are levels of matrices.
        work_bytes: of memory that decoding needs beside the weights, the reader left out.
    """

    matrices: tuple[tuple[int, int, int, int, int], ...]
    tables: bytes
    codebooks: bytes
    states: bytes
    rest: bytes
    bits: bytes
    words: bytes
    covered: int
    work_bytes: int

    @property
    def parts(self) -> tuple[bytes, ...]:
        return self.tables, self.codebooks, self.states, self.rest, self.bits, self.words

    @property
    def bytes(self) -> int:
        """Of flash, the code left out."""
        return sum(map(len, self.parts))


def flash_of(weights: Floats, shared: Iterable[Shared]) -> Flash:
    """Pack the array that the kernels read.

    Args:
        shared: the network's weights that are few values; those that the array holds in another
            order than that of plain filters stay floats.
    """
    covered = np.zeros(len(weights), bool)
    matrices = [m for s in shared if (m := _placed(weights, s, covered)) is not None]
    recorded = _Recorded()
    rows: list[tuple[int, int, int, int, int]] = []
    codebooks: list[Floats] = []
    for m in matrices:
        height, width = m.levels.shape
        rows.append((m.at, height, width, sum(len(c) for c in codebooks), len(m.codebook)))
        codebooks.append(m.codebook)
        classes = coding.row_classes(m.levels)
        if not len(m.codebook):
            recorded.differences(m.rows, _ROWS)
            recorded.differences(m.columns, _COLUMNS)
        recorded.differences(classes, _CLASSES)
        coding.code(recorded, classes, m.levels.shape[1], m.levels)
        recorded.bits.append(coding.split(m.levels)[1])
    tables = tables_of(recorded.counts)
    encoder = Encoder(tables, _LANES)
    for symbols, contexts in recorded.steps:
        encoder.put(symbols, contexts)
    stream = encoder.finish()
    bits = np.concatenate([np.zeros(0, np.uint8), *recorded.bits])
    return Flash(
        tuple(rows),
        tables.frequency.astype("<u2").tobytes(),
        np.concatenate([np.zeros(0, np.float32), *codebooks]).astype("<f4").tobytes(),
        stream.states.astype("<u4").tobytes(),
        _runs(weights[~covered]),
        np.packbits(bits).tobytes(),
        stream.words.astype("<u2").tobytes(),
        int(covered.sum()),
        max((5 * r[2] + 2 * r[1] for r in rows), default=0),
    )


class _Recorded:
    """What is coded, in the order in which it is read; a ``levels.Coder`` that writes it down."""

    def __init__(self) -> None:
        self.counts = np.zeros((_CONTEXTS, coding.SYMBOLS), np.int64)
        self.steps: list[tuple[_Ints, _Ints]] = []
        self.bits: list[NDArray[np.uint8]] = []

    def row(self, contexts: _Ints, symbols: _Ints | None) -> _Ints:
        assert symbols is not None
        np.add.at(self.counts, (contexts, symbols), 1)
        self.steps.append((symbols, contexts))
        return symbols

    def differences(self, numbers: NDArray[np.integer], context: int) -> None:
        """Each number as what it differs by from the one before."""
        values = np.concatenate([[0], numbers.astype(np.int64)])
        steps: _Ints = values[1:] - values[:-1]
        symbols, bits = coding.split(steps)
        self.row(np.full(len(steps), context), symbols)
        self.bits.append(bits)


def _placed(weights: Floats, shared: Shared, covered: NDArray[np.bool_]) -> _Matrix | None:
    """A weight where the array has it as plain filters, which are marked as covered."""
    m, d = shared.levels.shape
    taps = np.arange(d)
    if len(shared.shape) == 4:  # channels go last: C, Kh, Kw -> Kh, Kw, C
        taps = taps.reshape(shared.shape[1:]).transpose(1, 2, 0).ravel()
    values = shared.value.numpy().reshape(m, d)[:, taps]
    blocks = -(-m // BLOCK)
    full = np.zeros((blocks * BLOCK, d), np.float32)
    full[:m] = values
    filters = full.reshape(blocks, BLOCK, d).transpose(0, 2, 1)  # (blocks, taps, BLOCK)
    place = np.zeros((blocks, d + 1, BLOCK), bool)
    place[:, 1:] = (np.arange(blocks * BLOCK) < m).reshape(blocks, 1, BLOCK)
    at = _where(weights, filters, covered, place)
    if at is None:
        return None
    covered[at : at + place.size] |= place.ravel()
    levels = shared.levels.astype(np.int64)[:, taps]
    return _Matrix(at, levels, shared.rows, shared.columns[taps], shared.codebook)


def _where(
    weights: Floats, filters: Floats, covered: NDArray[np.bool_], place: NDArray[np.bool_]
) -> int | None:
    """Where filters (blocks, taps, BLOCK) stand, biases before each block, that are not covered."""
    data, first = weights.tobytes(), filters[0].tobytes()
    if not filters[0].any():  # zeros, of which there are many
        return None
    found = data.find(first)
    while found >= 0:
        at = found // 4 - BLOCK
        if found % (4 * BLOCK) == 0 and at >= 0 and at + place.size <= len(weights):
            here = weights[at : at + place.size].reshape(place.shape)
            taken = covered[at : at + place.size].reshape(place.shape)
            if here[:, 1:].tobytes() == filters.tobytes() and not (taken & place).any():
                return at
        found = data.find(first, found + 1)
    return None


def _runs(values: Floats) -> bytes:
    """So many zeros, so many floats, the floats, and again."""
    zero = values.view(np.uint32) == 0
    edges = np.flatnonzero(np.diff(zero)) + 1
    pieces: list[tuple[bool, Floats]] = []
    for part in np.split(values, edges):
        for start in range(0, len(part), _MOST_RUN):
            piece = part[start : start + _MOST_RUN]
            pieces.append((bool(piece.view(np.uint32)[0] == 0), piece))
    out: list[bytes] = []
    n_zeros = 0
    for empty, piece in pieces:
        if empty:
            if n_zeros:
                out.append(_counts(n_zeros, 0))
            n_zeros = len(piece)
            continue
        out += [_counts(n_zeros, len(piece)), piece.astype("<f4").tobytes()]
        n_zeros = 0
    if n_zeros:
        out.append(_counts(n_zeros, 0))
    return b"".join(out)


def _counts(zeros: int, floats: int) -> bytes:
    return zeros.to_bytes(2, "little") + floats.to_bytes(2, "little")


def flash_source(flash: Flash) -> dict[str, object]:
    """What the template of the decoder is filled with."""
    ends = np.cumsum([len(part) for part in flash.parts]).tolist()
    names = ("CODEBOOK_AT", "STATES_AT", "REST_AT", "BITS_AT", "WORDS_AT", "PACKED_BYTES")
    tables: Sequence[str] = (
        c_array("uint16_t", "first", coding.FIRST.tolist()),
        c_array("uint8_t", "width", coding.WIDTH.tolist()),
        c_array("int32_t", "scales", coding.SCALE.tolist(), 8),
        c_array("int32_t", "bounds", coding.BOUNDS.tolist(), 8),
        c_array("matrix", "matrices", [f"{{{', '.join(map(str, m))}}}" for m in flash.matrices], 2),
    )
    return dict(zip(names, ends, strict=True)) | {
        "CONTEXTS": _CONTEXTS,
        "SYMBOLS": coding.SYMBOLS,
        "LANES": _LANES,
        "N_SIZES": len(coding.FIRST),
        "N_MATRICES": len(flash.matrices),
        "N_BOUNDS": len(coding.BOUNDS),
        "UNIT": coding.UNIT,
        "MEMORY": coding.MEMORY,
        "CAP": coding.CAP,
        "SEEN": coding.UNIT * coding.UNIT << coding.LEAST_CLASS // 2,
        "LAST_CLASS": coding.CLASSES - 1,
        "BLOCK": BLOCK,
        "WORK_BYTES": flash.work_bytes,
        # The decoder's own state before that, rounded up.
        "UNPACK_BYTES": flash.work_bytes + 4 * _LANES + 2 * _CONTEXTS * (coding.SYMBOLS + 1) + 64,
        "TABLES": "".join(tables),
        "BYTES": byte_text(b"".join(flash.parts)),
    }
