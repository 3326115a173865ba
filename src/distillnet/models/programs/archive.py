"""The records of a programme's archive: one JSON document, and tensors as raw bytes.

Nothing here is unpickled, looked up or run, and no more is read than the file has bytes: records
are stored as they are, do not overlap, and a tensor lies within its record.
"""

import json
import math
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "Archive", "Refused", "read_archive", "whole"]

_MODEL = "models/model.json"
_BYTE_ORDER = "byteorder"
_FOLDERS = {
    "weights": ("data/weights/", "model_weights_config.json"),
    "constants": ("data/constants/", "model_constants_config.json"),
}
_MAX_JSON_BYTES = 64 * 2**20
_MAX_DIMENSIONS = 8
_STRIDED = 7  # as torch._export.serde.schema.Layout counts
# As torch._export.serde.schema.ScalarType counts.
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


class Refused(Exception):  # noqa: N818 - it is what was found, like StopIteration
    """A file holds something that is not accepted; the message says what."""


@dataclass(frozen=True)
class Archive:
    """What a file holds: the programme's JSON document, and tensors by name."""

    document: dict[str, Any]
    weights: Mapping[str, Tensor]  # parameters, and buffers that are saved with them
    constants: Mapping[str, Tensor]


def read_archive(path: Path) -> Archive:
    """Read what ``torch.export.save`` wrote; Refused for what cannot be accepted.

    A file that is damaged may raise any other exception.
    """
    with zipfile.ZipFile(path) as archive:
        records = _Records(archive, path.stat().st_size)
        others = [
            name
            for name in records.infos
            if name.startswith("data/aotinductor/")
            or (name.startswith("models/") and name != _MODEL)
        ]
        if others:
            raise Refused(f"it holds {others[0]!r} beside the one network")
        if _MODEL not in records.infos:
            raise Refused(f"it holds no {_MODEL!r}, as archives of older PyTorch and others do not")
        if records.read(_BYTE_ORDER).decode() != sys.byteorder:
            raise Refused(f"its bytes are not in the order of this machine, {sys.byteorder}")
        document = records.json(_MODEL)
        weights, constants = (
            _tensors(records, folder, config) for folder, config in _FOLDERS.values()
        )
    return Archive(document, weights, constants)


class _Records:
    """The records of an open archive by name, without the folder that all of them lie in."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self.archive = archive
        self.infos: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in archive.infolist():
            # Nothing that PyTorch writes is compressed; a small file that unpacks to a huge one is,
            # or its records lie over each other.
            if info.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"its record {info.filename!r} is compressed")
            total += info.file_size
            name = str(PurePosixPath(*PurePosixPath(info.filename).parts[1:]))
            if name in self.infos:
                raise Refused(f"it holds two records {name!r}")
            self.infos[name] = info
        if total > file_bytes:
            raise Refused(f"its records have {total} bytes, more than the file's {file_bytes}")

    def read(self, name: str) -> bytes:
        if name not in self.infos:
            raise Refused(f"it holds no {name!r}")
        return self.archive.read(self.infos[name])

    def json(self, name: str) -> Any:
        if name in self.infos and self.infos[name].file_size > _MAX_JSON_BYTES:
            raise Refused(f"its {name!r} has {self.infos[name].file_size} bytes")
        return json.loads(self.read(name))


def _tensors(records: _Records, folder: str, config_name: str) -> dict[str, Tensor]:
    """The tensors of a folder; those that are one to PyTorch are one here."""
    tensors: dict[str, Tensor] = {}
    known: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    room = sum(
        info.file_size
        for name, info in records.infos.items()
        if name.startswith((folder + "weight_", folder + "tensor_"))
    )
    for name, entry in records.json(folder + config_name)["config"].items():
        path_name, meta = str(entry["path_name"]), entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise Refused(f"its tensor {name!r} is stored as a pickle, which can hold code")
        if not path_name.startswith(("weight_", "tensor_")) or folder + path_name not in (
            records.infos
        ):
            raise Refused(f"its tensor {name!r} has no raw record {path_name!r}")
        key = json.dumps([path_name, meta, entry["is_param"]], sort_keys=True)
        if key not in known:
            if path_name not in raw:
                data = bytearray(records.read(folder + path_name))
                raw[path_name] = torch.frombuffer(data or bytearray(1), dtype=torch.uint8)
                raw[path_name] = raw[path_name][: len(data)]
            known[key] = _tensor(name, raw[path_name], meta)
            # Many names for overlapping parts of one record would be many copies.
            room -= known[key].nbytes
            if room < 0:
                raise Refused("its tensors share more of their records than its bytes allow")
        tensors[name] = known[key]
    return tensors


def _tensor(name: str, raw: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """A tensor as its entry says it lies in a record of bytes."""
    if meta["dtype"] not in DTYPES or meta["layout"] != _STRIDED:
        raise Refused(f"its tensor {name!r} is of a type or layout that networks do not have")
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = (tuple(whole(x["as_int"]) for x in meta[k]) for k in ("sizes", "strides"))
    offset = whole(meta["storage_offset"]["as_int"])
    if len(sizes) != len(strides) or len(sizes) > _MAX_DIMENSIONS:
        raise Refused(f"its tensor {name!r} has sizes {sizes} and strides {strides}")
    here = len(raw) // dtype.itemsize
    n = math.prod(sizes)
    if n == 0:
        return torch.zeros(sizes, dtype=dtype) if max(sizes) <= here else _short(name)
    last = offset + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
    # A stride of zero would let a few bytes stand for a tensor of any size.
    if last >= here or n > here:
        return _short(name)
    flat = raw[: here * dtype.itemsize].view(dtype)
    if dtype == torch.bool:  # bytes other than 0 and 1 are no bool
        flat = raw != 0
    return flat.as_strided(sizes, strides, offset).clone()


def _short(name: str) -> Tensor:
    raise Refused(f"its record is too short for the tensor {name!r}")


def whole(value: object) -> int:
    """A size, stride or offset; Refused for anything but a whole number from 0 on."""
    if type(value) is not int or not 0 <= value < 2**62:
        raise Refused(f"it holds {str(value)[:60]!r} where a size is expected")
    return value
