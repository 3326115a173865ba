"""Load a ``torch.export`` programme from an untrusted file.

``torch.export.load`` must not see such a file. As of PyTorch 2.15 it unpickles weights, constants
and sample inputs without restriction and evaluates symbolic expressions and guards as Python
source: the hostile files of tests/test_models.py run code that way. It also imports modules that a
tree specification names, looks functions up by dotted name (``torch.os.system`` is one, which only
a later check rejects), loads compiled libraries and writes names into generated source.

So a file is taken apart here, only what a CNN needs is accepted, and a new archive that holds
nothing else is given to ``torch.export.load``: raw weights, a graph of ``aten`` operators whose
names are identifiers, and no pickle, guard, metadata or compiled library.
"""

import io
import json
import math
import operator
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import fx, nn

from distillnet.errors import InputError
from distillnet.models.program_schema import (
    Refused,
    clean_document,
    clean_value,
    require_name,
    require_qualified_name,
)

__all__ = ["Program", "load_program"]

_MODEL = "models/model.json"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_CONFIGS = {
    _WEIGHTS: f"{_WEIGHTS}model_weights_config.json",
    _CONSTANTS: f"{_CONSTANTS}model_constants_config.json",
}
_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Program:
    """An exported network as a callable module, and its image input."""

    module: nn.Module
    input_shape: tuple[int, int, int]  # (C, H, W); a size left open is that of the example


def load_program(path: Path) -> Program:
    """Load ``path``, written by ``torch.export.save`` of PyTorch 2.9 or later, without trusting it.

    Raises InputError for a file that is missing or damaged, and for a programme that holds more
    than weights and a graph of ``aten`` operators from one tensor to one tensor.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a programme saved by torch.export.save.")
    # Every failure of a reader below means that the file is not what it should be.
    try:
        records = _read_records(path)
        document = _parse_json(records, _MODEL)
        clean = clean_document(document)
        input_shape = _input_shape(clean)
        module = torch.export.load(_rebuild(records, clean)).module()
    except Refused as refused:
        raise InputError(
            f"{path} is refused: {refused}. Expected a programme with one image tensor in and one"
            " score tensor out, made of tensors and aten operators only; export it again with"
            " torch.export.export(model.eval(), (images,), dynamic_shapes=({0: 'batch'},)) and"
            " torch.export.save of PyTorch 2.9 or later."
        ) from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"{path} cannot be read as a torch.export programme: {reason[:200]}. Expected a whole"
            " file written by torch.export.save of PyTorch 2.9 or later; export the network again."
        ) from error
    # An exported graph has inference fixed in it and refuses eval(), which every caller does.
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)
    _allow_export(module)
    return Program(module, input_shape)


def _allow_export(module: nn.Module) -> None:
    """Constants are detached in place, which a second export of the programme refuses."""
    assert isinstance(module, fx.GraphModule)
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.detach_.default:
            node.target = torch.ops.aten.detach.default
    module.recompile()


def _read_records(path: Path) -> dict[str, bytes]:
    """The archive's records by name, without the folder that all of them lie in."""
    with zipfile.ZipFile(path) as archive:
        records: dict[str, bytes] = {}
        for info in archive.infolist():
            # Nothing that PyTorch writes is compressed; a small file that unpacks to a huge one is.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
                raise Refused(f"its record {info.filename!r} is compressed")
            name = str(PurePosixPath(*PurePosixPath(info.filename).parts[1:]))
            if name in records:
                raise Refused(f"it holds two records {name!r}")
            records[name] = archive.read(info)
    if _MODEL not in records:
        raise Refused(f"it holds no {_MODEL!r}, as archives of older PyTorch and others do not")
    others = [
        name
        for name in records
        if name.startswith("data/aotinductor/") or (name.startswith("models/") and name != _MODEL)
    ]
    if others:
        raise Refused(f"it holds {others[0]!r} beside the one network")
    return records


def _parse_json(records: Mapping[str, bytes], name: str) -> Any:
    if name not in records:
        raise Refused(f"it holds no {name!r}")
    if len(records[name]) > _MAX_JSON_BYTES:
        raise Refused(f"its {name!r} has {len(records[name])} bytes")
    return json.loads(records[name])


def _rebuild(records: Mapping[str, bytes], document: dict[str, Any]) -> io.BytesIO:
    """A new archive that holds the cleaned graph, the raw weights, and nothing else of the file."""
    kept: dict[str, bytes] = {_MODEL: json.dumps(document).encode(), _SAMPLE_INPUTS: b""}
    for folder, config_name in _CONFIGS.items():
        config = _clean_config(_parse_json(records, config_name), records, folder)
        kept[config_name] = json.dumps(config).encode()
        for entry in config["config"].values():
            kept[folder + entry["path_name"]] = records[folder + entry["path_name"]]
    # These say which layout the archive has; PyTorch compares them with what it knows.
    for name in ("archive_format", "archive_version", "byteorder", ".data/version"):
        kept[name] = records[name]
    rebuilt = io.BytesIO()
    with zipfile.ZipFile(rebuilt, "w", zipfile.ZIP_STORED) as archive:
        for name, data in kept.items():
            archive.writestr(f"model/{name}", data)
    rebuilt.seek(0)
    return rebuilt


def _clean_config(
    given: Any, records: Mapping[str, bytes], folder: str
) -> dict[str, dict[str, Any]]:
    """The table of tensors, each a raw record that is large enough for it."""
    config = {}
    for name, entry in given["config"].items():
        path_name, meta = entry["path_name"], entry["tensor_meta"]
        require_qualified_name(name, "tensor name")
        require_name(path_name, "record name")
        if entry["use_pickle"] or meta is None:
            raise Refused(f"its tensor {name!r} is stored as a pickle, which can hold code")
        if not path_name.startswith(("weight_", "tensor_")) or folder + path_name not in records:
            raise Refused(f"its tensor {name!r} has no raw record {path_name!r}")
        # A stride of zero would let a few bytes stand for a tensor of any size.
        if _n_values(meta) > len(records[folder + path_name]):
            raise Refused(f"its record {path_name!r} is too short for tensor {name!r}")
        config[name] = {
            "path_name": path_name,
            "is_param": bool(entry["is_param"]),
            "use_pickle": False,
            "tensor_meta": clean_value(meta),
        }
    return {"config": config}


def _n_values(meta: dict[str, Any]) -> int:
    return math.prod(operator.index(size["as_int"]) for size in meta["sizes"])


def _input_shape(document: dict[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the one input that is not a weight."""
    graph_module = document["graph_module"]
    (name,) = (
        spec["user_input"]["arg"]["as_tensor"]["name"]
        for spec in graph_module["signature"]["input_specs"]
        if "user_input" in spec
    )
    sizes = graph_module["graph"]["tensor_values"][name]["sizes"]
    if len(sizes) != 4:
        raise Refused(f"its input has {len(sizes)} dimensions instead of the 4 of (N, C, H, W)")
    channels, height, width = (
        size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"]
        for size in sizes[1:]
    )
    return channels, height, width
