"""A mission as a file: bitmaps, what its weights change of the shared ones, classes, thresholds.

A tensor of the mission's network is stored as one of

- *same*: a slice of the shared weights, by the bitmaps: nothing is stored;
- *changed*: the bits in which it differs from that slice, byte by byte of each number and packed;
- *own*: as it is, packed: halves of layers that were split, which the original does not have.

All three give back every bit. What is read is bounded by what the shapes say.
"""

import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.runs import Run
from distillnet.missions.packages.graphs import Base, NodeDocument, node_documents, nodes_of

__all__ = ["Contents", "check_name", "contents_of", "decode", "encode", "graph_of", "keep_of"]

FORMAT = 1
_LONGEST = 2**31  # bytes of a tensor
_DTYPES = {"float32": torch.float32, "bool": torch.bool, "int64": torch.int64}

_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_Name = Annotated[str, Meta(pattern=_NAME)]
_Sha = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Shape = Annotated[list[Annotated[int, Meta(ge=1, le=2**24)]], Meta(max_length=4)]


class _Bits(Struct, frozen=True, forbid_unknown_fields=True):
    """A keep map: eight neurons a byte, packed."""

    shape: _Shape
    packed: bytes


class _Stored(Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Literal["float32", "bool", "int64"]
    shape: _Shape
    coding: Literal["same", "changed", "own"]
    packed: bytes


class _Class(Struct, frozen=True, forbid_unknown_fields=True):
    index: Annotated[int, Meta(ge=0, le=2**24)]
    name: str


class Contents(Struct, frozen=True, forbid_unknown_fields=True):
    """What a package holds.

    Attributes:
        serial: a later package of the same name has a larger one.
        base_sha256: of the shared file that it goes with; ``weights_sha256`` of the model's.
        unknown: whether there is one more score, for images of none of the classes.
        network_sha256: of the network's tensors, after decoding.
    """

    format: Annotated[int, Meta(ge=1, le=1)]
    name: _Name
    serial: Annotated[int, Meta(ge=0, le=2**53)]
    model: str
    weights_sha256: _Sha
    base_sha256: _Sha
    classes: Annotated[list[_Class], Meta(min_length=1)]
    preprocessing: Preprocessing
    thresholds: dict[str, float]
    unknown: bool
    keep: dict[str, _Bits]
    nodes: list[NodeDocument]
    output: str
    tensors: dict[str, _Stored]
    network_sha256: _Sha


def contents_of(
    run: Run, graph: Graph, base: Base, name: str, serial: int, *, keep: Mapping[str, Tensor],
    unknown: bool,
) -> Contents:  # fmt: skip
    """A run as a package over the shared weights.

    Args:
        graph: the run's network, with the score of the unknown where ``unknown``.
        keep: the run's fused keep maps.
    """
    slices = _slices(base, keep, run.mission.indices)
    return Contents(
        FORMAT,
        name,
        serial,
        base.model,
        run.weights_sha256,
        base.sha256,
        [_Class(i, n) for i, n in zip(run.mission.indices, run.mission.names, strict=True)],
        run.preprocessing,
        {
            layer["site"]: layer["threshold"]
            for layer in run.result["layers"]
            if layer["threshold"] is not None
        },
        unknown,
        {site: _bits(bits) for site, bits in keep.items()},
        node_documents(graph),
        graph.output,
        {n: _stored(tensor, slices.get(n)) for n, tensor in graph.params.items()},
        _digest(graph.params),
    )


def check_name(name: str) -> None:
    """Raise InputError where a mission cannot be called so."""
    if not re.fullmatch(_NAME, name):
        raise InputError(
            f"found the name {name!r} for a mission; expected letters, digits, dots and dashes, "
            "64 at most, of which the first is a letter or digit. Pass one with --name"
        )


def encode(contents: Contents) -> bytes:
    """The body of a package."""
    return msgspec.msgpack.encode(contents)


def decode(body: bytes, what: str) -> Contents:
    """The body of a package again; InputError where it is none, whoever signed it."""
    try:
        return msgspec.msgpack.decode(body, type=Contents)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(
            f"{what} does not hold what this version of distillnet reads ({str(error)[:200]}); "
            "pack it with this version, or use that which packed it"
        ) from error


def keep_of(contents: Contents) -> dict[str, Tensor]:
    """The keep maps by site; InputError where one is not of its shape."""
    found = {}
    for site, bits in contents.keep.items():
        count = math.prod(bits.shape)
        try:
            data = np.frombuffer(_inflate(bits.packed, -(-count // 8)), np.uint8)
        except (ValueError, zlib.error) as error:
            raise InputError(
                f"the bitmap of {site!r} in mission {contents.name!r} is not of its shape "
                f"{bits.shape} ({error}); pack it again"
            ) from error
        found[site] = torch.from_numpy(np.unpackbits(data, count=count)).bool()
        found[site] = found[site].reshape(bits.shape)
    return found


def graph_of(contents: Contents, base: Base, what: str) -> Graph:
    """The mission's network, its tensors those that were packed to the last bit.

    Raises:
        InputError: it belongs to other shared weights, or its values do not fit together.
    """
    if contents.base_sha256 != base.sha256:
        raise InputError(
            f"{what} belongs to other weights ({contents.model}, {contents.base_sha256[:12]}...) "
            f"than those here ({base.model}, {base.sha256[:12]}...); expected a package for these"
        )
    try:
        keep = keep_of(contents)
        slices = _slices(base, keep, tuple(c.index for c in contents.classes))
        params = {n: _restored(s, slices.get(n)) for n, s in contents.tensors.items()}
        if _digest(params) != contents.network_sha256:
            raise ValueError("its tensors are not those that were packed")
        graph = Graph(nodes_of(contents.nodes, params), params, contents.output)
        shape = graph[graph.output].shape
        if shape != (len(contents.classes) + contents.unknown,):
            raise ValueError(f"scores of shape {shape} for {len(contents.classes)} classes")
        return graph
    except Exception as error:  # values of a trusted signer that do not fit, whatever is raised
        raise InputError(
            f"{what} cannot be put together ({type(error).__name__}: {str(error)[:200]}); pack it "
            "again"
        ) from error


def _slices(base: Base, keep: Mapping[str, Tensor], outputs: tuple[int, ...]) -> dict[str, Tensor]:
    """What the bitmaps leave of the shared weights, by the name that a programme gives them."""
    sites = {node.name for node in base.graph.nodes}
    plan = Plan({site: bits for site, bits in keep.items() if site in sites}, outputs)
    cut = compact(base.graph, analyse(base.graph), plan)
    return {re.sub(r"\W", "_", name): tensor for name, tensor in cut.params.items()}


def _bits(keep: Tensor) -> _Bits:
    packed = np.packbits(keep.detach().cpu().flatten().numpy())
    return _Bits(list(keep.shape), zlib.compress(packed.tobytes(), 9))


def _stored(tensor: Tensor, same: Tensor | None) -> _Stored:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise InputError(f"found a tensor of {tensor.dtype}; expected {', '.join(_DTYPES)}")
    bits, coding = _bytes(tensor), "own"
    if same is not None and same.shape == tensor.shape and same.dtype == tensor.dtype:
        bits, coding = bits ^ _bytes(same), "changed"
    if coding == "changed" and not bits.any():
        return _Stored(dtype, list(tensor.shape), "same", b"")  # type: ignore[arg-type]
    # The first bytes of all numbers, signs and exponents, pack well; the last do not.
    planes = bits.reshape(-1, tensor.element_size()).T
    data = zlib.compress(np.ascontiguousarray(planes).tobytes(), 9)
    return _Stored(dtype, list(tensor.shape), coding, data)  # type: ignore[arg-type]


def _restored(stored: _Stored, same: Tensor | None) -> Tensor:
    dtype = _DTYPES[stored.dtype]
    if stored.coding != "own":
        fits = same is not None and list(same.shape) == stored.shape and same.dtype == dtype
        if same is None or not fits:
            raise ValueError("a tensor changes what the shared weights do not have")
        if stored.coding == "same":
            return same
    size, count = torch.empty(0, dtype=dtype).element_size(), math.prod(stored.shape)
    planes = np.frombuffer(_inflate(stored.packed, size * count), np.uint8).reshape(size, count)
    bits = np.array(planes.T, order="C").reshape(-1)
    if same is not None and stored.coding == "changed":
        bits = bits ^ _bytes(same)
    return torch.from_numpy(bits).view(dtype).reshape(stored.shape)


def _inflate(packed: bytes, expected: int) -> bytes:
    """Exactly so many bytes; no more are ever made."""
    if expected > _LONGEST:
        raise ValueError(f"{expected:,} bytes of one tensor")
    inflater = zlib.decompressobj()
    data = inflater.decompress(packed, expected + 1)
    if len(data) != expected or not inflater.eof or inflater.unused_data:
        raise ValueError(f"{len(data):,} bytes, expected {expected:,}")
    return data


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = (
        tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    )
    return flat


def _digest(params: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(params.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor).tobytes())
    return digest.hexdigest()
