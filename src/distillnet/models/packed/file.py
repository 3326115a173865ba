"""The packed file: a network whose weights are few values, entropy-coded; read as it was written.

    magic | bytes of the head, u32 | head | states of the lanes, u32 each | words, u16 each

All numbers are little-endian. The head is xz: a JSON document, NUL, and the arrays that it tells of
one behind the other: frequencies, then of each tensor its steps and the classes of its rows, or its
values, then the bits of large levels, at last the records. Levels are in the words, see ``rans``
and ``levels``.

Nothing is taken out of a file that is not worth it: the head unpacks to at most 200 times the
file, and the file holds at most 256 weights for each of its bytes, beside a million that are free.
"""

import lzma
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

import distillnet.models.packed.levels as coding
from distillnet.errors import InputError
from distillnet.files.documents import Count, Document, Sha256, Text
from distillnet.files.packed import MAGIC
from distillnet.files.regular import read_regular
from distillnet.models.packed.rans import Decoder, Encoder, Stream, Tables, tables_of
from distillnet.models.packed.tensors import Plain, Shared, sha256_of

__all__ = ["KINDS", "Packed", "Unpacked", "read_packed", "write_packed"]

KINDS = ("weights", "programme", "run")
_FORMAT = 1
_AT_MOST = 2**32
_MOST_NUMBERS = 2**40  # of a tensor, were none of its sides 0
_FREE = 2**20  # bytes of a head, and weights, that the smallest file may have
_HEAD_PER_BYTE, _WEIGHTS_PER_BYTE = 200, 256
_MEMORY = 2**26  # bytes that xz may take for its dictionary
_WEIGHTS_PER_LANE, _MOST_LANES = 2**14, 256

_Ints = NDArray[np.int64]
_Dimension = Annotated[int, Meta(ge=0, le=2**31)]
_Shape = Annotated[tuple[_Dimension, ...], Meta(max_length=8)]
_TYPES = {"float32": torch.float32, "float16": torch.float16, "int64": torch.int64,
          "bool": torch.bool, "uint8": torch.uint8}  # fmt: skip


class _Tensor(Document, frozen=True):
    """How a tensor lies in the file: ``rows`` of levels, or without these its values."""

    name: Text
    shape: _Shape
    dtype: Literal["float32", "float16", "int64", "bool", "uint8"] = "float32"
    rows: _Dimension | None = None
    codebook: Annotated[int, Meta(ge=0, le=2**16)] = 0

    @property
    def count(self) -> int:
        return math.prod(self.shape)


class _Record(Document, frozen=True):
    name: Text
    bytes: Count


class _Head(Document, frozen=True):
    format: int
    kind: Literal["weights", "programme", "run"]
    lanes: Annotated[int, Meta(ge=1, le=_MOST_LANES)]
    extra: Count
    sha256: Sha256
    tensors: Annotated[list[_Tensor], Meta(max_length=100_000)]
    records: Annotated[list[_Record], Meta(max_length=1000)]
    about: dict[Text, Text | float]


@dataclass(frozen=True)
class Packed:
    """What to write.

    Attributes:
        kind: a state dict, a programme without its weights' values, or a run.
        records: other files, by name.
        about: what is to be told of it.
    """

    kind: str
    tensors: Mapping[str, Shared | Plain]
    records: Mapping[str, bytes]
    about: Mapping[str, str | float]


@dataclass(frozen=True)
class Unpacked:
    """What was read; float16 comes back as float32.

    ``shared`` holds those of the tensors that were few values, as these.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    records: Mapping[str, bytes]
    about: Mapping[str, str | float]
    shared: Mapping[str, Shared] = field(default_factory=dict)


# --- writing


class _Counter:
    def __init__(self) -> None:
        self.counts = np.zeros((coding.CONTEXTS, coding.SYMBOLS), np.int64)

    def row(self, contexts: _Ints, symbols: _Ints | None) -> _Ints:
        assert symbols is not None
        np.add.at(self.counts, (contexts, symbols), 1)
        return symbols


class _Writer:
    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def row(self, contexts: _Ints, symbols: _Ints | None) -> _Ints:
        assert symbols is not None
        self.encoder.put(symbols, contexts)
        return symbols


def write_packed(packed: Packed, path: Path) -> None:
    """Write a packed file; ValueError for levels beyond 65,535 or a weight in more than half of it.

    Reading it gives exactly the values that ``packed`` holds.
    """
    shared = {name: t for name, t in packed.tensors.items() if isinstance(t, Shared)}
    classes = {name: coding.row_classes(t.levels) for name, t in shared.items()}
    counter = _Counter()
    for name, t in shared.items():
        coding.code(counter, classes[name], t.levels.shape[1], t.levels)
    tables = tables_of(counter.counts)
    n_weights = sum(t.levels.size for t in shared.values())
    lanes = min(max(n_weights // _WEIGHTS_PER_LANE, 1), _MOST_LANES)
    encoder = Encoder(tables, lanes)
    for name, t in shared.items():
        coding.code(_Writer(encoder), classes[name], t.levels.shape[1], t.levels)
    stream = encoder.finish()
    extra = [coding.split(t.levels.astype(np.int64))[1] for t in shared.values()]
    bits = np.concatenate([np.zeros(0, np.uint8), *extra])
    listed: list[_Tensor] = []
    arrays = [tables.frequency.astype("<u2").tobytes()]
    for name, tensor in packed.tensors.items():
        if isinstance(tensor, Shared):
            t = tensor
            listed.append(_Tensor(name, t.shape, rows=len(t.levels), codebook=len(t.codebook)))
            arrays += [t.rows.tobytes(), t.columns.tobytes(), classes[name].tobytes()]
            arrays.append(t.codebook.astype("<f4").tobytes())
        else:
            dtype = str(tensor.value.dtype).removeprefix("torch.")
            listed.append(_Tensor(name, tuple(tensor.value.shape), dtype=dtype))  # type: ignore[arg-type]
            arrays.append(tensor.value.contiguous().numpy().tobytes())
    arrays.append(np.packbits(bits).tobytes())
    values = {name: _widened(each.value) for name, each in packed.tensors.items()}
    head = _Head(
        _FORMAT, packed.kind, lanes, len(bits), sha256_of(values), listed,  # type: ignore[arg-type]
        [_Record(name, len(data)) for name, data in packed.records.items()], dict(packed.about),
    )  # fmt: skip
    body = msgspec.json.encode(head) + b"\0" + b"".join([*arrays, *packed.records.values()])
    squeezed = lzma.compress(body, preset=6 | lzma.PRESET_EXTREME)
    parts = [MAGIC, len(squeezed).to_bytes(4, "little"), squeezed]
    parts += [stream.states.astype("<u4").tobytes(), stream.words.astype("<u2").tobytes()]
    data = b"".join(parts)
    if n_weights > _most_weights(len(data)) or len(body) > _most_head(len(data)):
        raise ValueError("so few of its numbers say anything that nobody would read it")
    path.write_bytes(data)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _most_weights(n_bytes: int) -> int:
    return _FREE + _WEIGHTS_PER_BYTE * n_bytes


def _most_head(n_bytes: int) -> int:
    return _FREE + _HEAD_PER_BYTE * n_bytes


# --- reading


class _Reader:
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def row(self, contexts: _Ints, symbols: _Ints | None) -> _Ints:
        return self.decoder.take(contexts)


def read_packed(path: Path) -> Unpacked:
    """Read a packed file; InputError where it is damaged or nothing that was packed."""
    try:
        data = read_regular(path, _AT_MOST)
        return _read(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, lzma.LZMAError, msgspec.MsgspecError, EOFError, RecursionError) as error:
        reason = str(error).replace("`", "'") or type(error).__name__
        raise InputError(
            f"{path} is not a whole packed file ({reason[:200]}); expected one that "
            "`distillnet pack` wrote. Copy it again, or pack again"
        ) from error


def _read(data: bytes) -> Unpacked:
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("it begins otherwise")
    at = len(MAGIC) + 4
    size = int.from_bytes(data[len(MAGIC) : at], "little")
    head, arrays = _head(data[at : at + size], _most_head(len(data)))
    n_weights = sum(t.count for t in head.tensors if t.rows is not None)
    if n_weights > _most_weights(len(data)):
        raise ValueError(f"{len(data)} bytes would hold {n_weights:,} weights")
    rest = data[at + size :]
    if len(rest) < 4 * head.lanes or len(rest) % 2:
        raise ValueError("it ends early")
    tables = Tables(
        arrays.take("<u2", coding.CONTEXTS * coding.SYMBOLS)
        .astype(np.int64)
        .reshape(coding.CONTEXTS, coding.SYMBOLS)
    )
    states = np.frombuffer(rest[: 4 * head.lanes], "<u4")
    decoder = Decoder(tables, Stream(states, np.frombuffer(rest[4 * head.lanes :], "<u2")))
    coded: dict[str, tuple[_Tensor, NDArray[np.int64], _Steps]] = {}
    shared: dict[str, Shared] = {}
    tensors: dict[str, Tensor] = {}
    for t in head.tensors:
        if t.name in coded or t.name in tensors:
            raise ValueError(f"it holds two tensors {t.name[:60]!r}")
        if t.rows is None:
            tensors[t.name] = _widened(arrays.tensor(t))
        else:
            steps = _steps(t, arrays)
            coded[t.name] = t, _symbols(decoder, steps), steps
    decoder.close()
    bits = np.unpackbits(arrays.take("u1", -(-head.extra // 8)).astype(np.uint8), count=head.extra)
    extra = coding.Extra(bits)
    for name, (t, symbols, steps) in coded.items():
        levels, extra = coding.join(symbols, extra)
        shared[name] = Shared(t.shape, levels, steps.rows, steps.columns, steps.codebook)
        tensors[name] = shared[name].value
    records = {r.name: arrays.bytes(r.bytes) for r in head.records}
    if arrays.left or extra.used != len(bits) or len(records) != len(head.records):
        raise ValueError("it holds more than it tells of")
    ordered = {t.name: tensors[t.name] for t in head.tensors}
    if sha256_of(ordered) != head.sha256:
        raise ValueError("its weights are not those that were packed")
    return Unpacked(head.kind, ordered, records, head.about, shared)


def _head(squeezed: bytes, at_most: int) -> tuple[_Head, "_Arrays"]:
    opened = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    body = opened.decompress(squeezed, max_length=at_most)
    if not opened.eof or opened.unused_data:
        raise ValueError("its head is cut off, or larger than the file is worth")
    text, nul, rest = body.partition(b"\0")
    found = msgspec.json.decode(text, type=_Format).format if nul else 0
    if found != _FORMAT:
        raise ValueError(f"it is of format {found}, and this version reads {_FORMAT}")
    return msgspec.json.decode(text, type=_Head), _Arrays(rest)


class _Format(msgspec.Struct):
    format: Count


class _Arrays:
    """Arrays one behind the other; ValueError where there are no more."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("its head holds less than it tells of")
        self.at += count
        return self.data[self.at - count : self.at]

    def take(self, dtype: str, count: int) -> NDArray[np.generic]:
        found = np.dtype(dtype)
        return np.frombuffer(self.bytes(count * found.itemsize), found)

    def tensor(self, t: _Tensor) -> Tensor:
        dtype = _TYPES[t.dtype]
        if math.prod(max(1, side) for side in t.shape) > _MOST_NUMBERS:
            raise ValueError(f"it holds a tensor of shape {list(t.shape)}")
        raw = self.bytes(t.count * dtype.itemsize)
        if not raw:
            return torch.zeros(t.shape, dtype=dtype)
        if dtype == torch.bool:
            return (torch.frombuffer(bytearray(raw), dtype=torch.uint8) != 0).reshape(t.shape)
        return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(t.shape)


@dataclass(frozen=True)
class _Steps:
    rows: NDArray[np.int8]
    columns: NDArray[np.int8]
    classes: NDArray[np.uint8]
    codebook: NDArray[np.float32]


def _steps(t: _Tensor, arrays: _Arrays) -> _Steps:
    rows = t.rows or 0
    if rows == 0 or t.count == 0 or t.count % rows:
        raise ValueError(f"{rows} rows do not make up the shape {t.shape}")
    found = _Steps(
        arrays.take("i1", rows),  # type: ignore[arg-type]
        arrays.take("i1", t.count // rows),  # type: ignore[arg-type]
        arrays.take("u1", rows),  # type: ignore[arg-type]
        arrays.take("<f4", t.codebook).astype(np.float32),
    )
    if found.classes.max() >= coding.CLASSES:
        raise ValueError("a row is of no class")
    return found


def _symbols(decoder: Decoder, steps: _Steps) -> NDArray[np.int64]:
    return coding.code(_Reader(decoder), steps.classes, len(steps.columns), None)
