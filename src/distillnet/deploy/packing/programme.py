"""A programme as records without its weights, and back: what a packed file holds of a network."""

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.job.runs import save_program
from distillnet.models.packed import Plain, Shared
from distillnet.models.programs import Program, load_program

__all__ = ["about_of", "open_programme", "take_apart"]

_ROOT = "archive/"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_CONFIG = f"{_WEIGHTS}model_weights_config.json"
_ABOUT = "extra/distillnet.json"
# What a reader needs, and nothing that is unpickled.
_KEPT = ("models/model.json", "byteorder", _CONFIG, f"{_CONSTANTS}model_constants_config.json",
         _ABOUT)  # fmt: skip


def take_apart(
    graph: Graph, shared: Mapping[str, Shared], about: Mapping[str, Any]
) -> tuple[dict[str, Shared | Plain], dict[str, bytes]]:
    """The tensors of a graph by their records in a programme, and the other records.

    Args:
        shared: by name of the weight.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        save_program(graph, path, about)
        with zipfile.ZipFile(path) as archive:
            found = {_below_root(name): archive.read(name) for name in archive.namelist()}
    records = {name: found[name] for name in _KEPT if name in found}
    values = {value.numpy().tobytes(): name for name, value in _values(shared)}
    tensors: dict[str, Shared | Plain] = {}
    for name, data in found.items():
        if not _is_tensor(name):
            continue
        weight = values.get(data)
        # By content: names of parameters are changed on their way into a programme.
        tensors[name] = shared[weight] if weight else Plain(_plain(data))
    return tensors, records


def open_programme(tensors: Mapping[str, Tensor], records: Mapping[str, bytes]) -> Program:
    """The programme that was taken apart, read as one from a stranger is.

    Raises:
        InputError: it is none that distillnet follows.
    """
    if set(records) - set(_KEPT):
        raise InputError(f"a packed network holds {sorted(set(records) - set(_KEPT))[0]!r:.80}")
    if strange := [name for name in tensors if not _is_tensor(name)]:
        raise InputError(f"a packed network holds a tensor {strange[0]!r:.80}; pack it again")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in records.items():
                archive.writestr(_ROOT + name, data)
            for name, tensor in tensors.items():
                archive.writestr(_ROOT + name, tensor.contiguous().numpy().tobytes())
        return load_program(path)


def about_of(records: Mapping[str, bytes]) -> dict[str, Any]:
    """What the programme tells of itself."""
    told: dict[str, Any] = json.loads(records.get(_ABOUT, b"{}"))
    return told


def _below_root(name: str) -> str:
    return name.partition("/")[2]


def _is_tensor(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return folder + "/" in (_WEIGHTS, _CONSTANTS) and last.startswith(("weight_", "tensor_"))


def _values(shared: Mapping[str, Shared]) -> list[tuple[str, Tensor]]:
    return [(name, s.value.contiguous()) for name, s in shared.items()]


def _plain(data: bytes) -> Tensor:
    """Bytes of a record: in half precision where that says the same, and whole otherwise."""
    if data and len(data) % 4 == 0:
        value = torch.from_numpy(np.frombuffer(data, np.float32).copy())
        if bool(torch.isfinite(value).all()) and torch.equal(value.half().float(), value):
            return value.half()
        return value
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
