"""Load a ``torch.export`` programme from an untrusted file.

``torch.export.load`` must not see such a file. As of PyTorch 2.15 it unpickles weights, constants
and sample inputs without restriction, imports modules that a tree specification names, calls any
function reachable from ``torch`` (``torch.os.system`` is one), evaluates symbolic expressions and
guards as Python source, and pastes node names into generated source.

So a file is taken apart here, only what a CNN needs is accepted, and a new archive that holds
nothing else is given to ``torch.export.load``: raw weights, a graph of ``aten`` operators whose
names are identifiers, and no pickle, guard, metadata or compiled library.
"""

import ast
import io
import json
import math
import operator
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from distillnet.errors import InputError

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

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)")
# aten.from_file maps, and may create, any file of the user's; set_ looks into foreign memory. Of
# the private operators, some of which check nothing, those that exported CNNs hold are accepted.
_REFUSED_ATEN = {"from_file", "set_"}
_PRIVATE_ATEN = {
    "_adaptive_avg_pool2d",
    "_assert_tensor_metadata",
    "_log_softmax",
    "_native_batch_norm_legit_no_training",
    "_softmax",
    "_to_copy",
}
_SCALAR_OPERATORS = {
    "_operator.add",
    "_operator.sub",
    "_operator.mul",
    "_operator.floordiv",
    "_operator.mod",
    "_operator.neg",
    "_operator.getitem",
    "_operator.eq",
    "_operator.ne",
    "_operator.lt",
    "_operator.le",
    "_operator.gt",
    "_operator.ge",
}
_SYMBOLIC_CALLS = {
    "Integer",
    "Add",
    "Mul",
    "Max",
    "Min",
    "FloorDiv",
    "CeilDiv",
    "CleanDiv",
    "Mod",
    "PythonMod",
}
_QUALIFIED_KEYS = {"parameter_name", "buffer_name", "tensor_constant_name"}
_UNSUPPORTED_KEYS = {
    "as_graph",
    "as_operator",
    "as_custom_obj",
    "custom_obj",
    "token",
    "buffer_mutation",
    "parameter_mutation",
    "user_input_mutation",
}
# One positional tensor in, one tensor out, as torch.utils._pytree writes it.
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_ONE_TENSOR_IN = {
    "type": "builtins.tuple",
    "context": "null",
    "children_spec": [
        {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]},
        {"type": "builtins.dict", "context": "[]", "children_spec": []},
    ],
}


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
        clean = _clean_document(document)
        archive = _rebuild(records, clean)
        exported = torch.export.load(archive)
        module = exported.module()
    except _Refused as refused:
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
    return Program(module, _input_shape(clean))


class _Refused(Exception):  # noqa: N818
    """A file holds something that is not accepted; the message says what."""


def _read_records(path: Path) -> dict[str, bytes]:
    """The archive's records by name, without the folder that all of them lie in."""
    with zipfile.ZipFile(path) as archive:
        records: dict[str, bytes] = {}
        for info in archive.infolist():
            # Nothing that PyTorch writes is compressed; a small file that unpacks to a huge one is.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
                raise _Refused(f"its record {info.filename!r} is compressed")
            name = str(PurePosixPath(*PurePosixPath(info.filename).parts[1:]))
            if name in records:
                raise _Refused(f"it holds two records {name!r}")
            records[name] = archive.read(info)
    if _MODEL not in records:
        raise _Refused(f"it holds no {_MODEL!r}, as archives of older PyTorch and others do not")
    others = [
        name
        for name in records
        if name.startswith("data/aotinductor/") or (name.startswith("models/") and name != _MODEL)
    ]
    if others:
        raise _Refused(f"it holds {others[0]!r} beside the one network")
    return records


def _parse_json(records: Mapping[str, bytes], name: str) -> Any:
    if name not in records:
        raise _Refused(f"it holds no {name!r}")
    if len(records[name]) > _MAX_JSON_BYTES:
        raise _Refused(f"its {name!r} has {len(records[name])} bytes")
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
        _require(_QUALIFIED_NAME, name, "tensor name")
        _require(_NAME, path_name, "record name")
        if entry["use_pickle"] or meta is None:
            raise _Refused(f"its tensor {name!r} is stored as a pickle, which can hold code")
        if not path_name.startswith(("weight_", "tensor_")) or folder + path_name not in records:
            raise _Refused(f"its tensor {name!r} has no raw record {path_name!r}")
        # A stride of zero would let a few bytes stand for a tensor of any size.
        if _n_values(meta) > len(records[folder + path_name]):
            raise _Refused(f"its record {path_name!r} is too short for tensor {name!r}")
        config[name] = {
            "path_name": path_name,
            "is_param": bool(entry["is_param"]),
            "use_pickle": False,
            "tensor_meta": _clean(meta),
        }
    return {"config": config}


def _n_values(meta: dict[str, Any]) -> int:
    return math.prod(operator.index(size["as_int"]) for size in meta["sizes"])


def _clean_document(document: Any) -> dict[str, Any]:
    """The programme without its metadata; _Refused for what cannot be dropped nor accepted."""
    graph_module = document["graph_module"]
    root = graph_module["module_call_graph"][0]["signature"]
    if json.loads(root["in_spec"])[1] != _ONE_TENSOR_IN:
        raise _Refused("its input is not one tensor, passed by position")
    if json.loads(root["out_spec"])[1] != _LEAF:
        raise _Refused("its output is not one tensor")
    graph = dict(graph_module["graph"])
    for node in graph["nodes"]:
        _check_target(node["target"])
        _check_inference(node)
    # Metadata is for people and for tools; parts of it name functions to look up.
    graph["nodes"] = [node | {"metadata": {}} for node in graph["nodes"]]
    if graph.pop("custom_obj_values", None):
        raise _Refused("it holds custom objects, which are pickles")
    signature: dict[str, Any] = {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, _ONE_TENSOR_IN]),
        "out_spec": json.dumps([1, _LEAF]),
        "forward_arg_names": None,
    }
    for symbol in document["range_constraints"]:
        _require(_NAME, symbol, "symbol")
    for verifier in document["verifiers"]:
        _require(_NAME, verifier, "verifier")
    return {
        "graph_module": {
            "graph": _clean(graph) | {"custom_obj_values": {}},
            "signature": _clean(graph_module["signature"]),
            "module_call_graph": [{"fqn": "", "signature": signature}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {str(k): int(v) for k, v in document["opset_version"].items()},
        "range_constraints": document["range_constraints"],
        "schema_version": {str(k): int(v) for k, v in document["schema_version"].items()},
        "verifiers": document["verifiers"],
        "torch_version": str(document["torch_version"]),
        "guards_code": [],  # Python source
    }


def _clean(value: Any) -> Any:
    """A copy of a part of the graph, its names and expressions checked, its devices the CPU."""
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for key, item in value.items():
        _require(_NAME, key, "name")
        if key in _UNSUPPORTED_KEYS:
            raise _Refused(f"it uses {key!r}")
        if key in ("device", "as_device"):
            item = {"type": "cpu", "index": None}
        elif key == "expr_str":
            _check_expression(item)
        elif key in _QUALIFIED_KEYS:
            _require(_QUALIFIED_NAME, item, "tensor name")
        elif key in ("name", "as_name") and item is not None and item != "":
            _require(_NAME, item, "name")
        cleaned[key] = _clean(item)
    return cleaned


def _require(pattern: re.Pattern[str], text: object, what: str) -> None:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise _Refused(f"it holds the {what} {str(text)[:60]!r}")


def _check_target(target: object) -> None:
    if target in _SCALAR_OPERATORS:
        return
    found = _ATEN.fullmatch(target) if isinstance(target, str) else None
    if found is not None:
        public = not found[1].startswith("_") or found[1] in _PRIVATE_ATEN
        overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if public and found[1] not in _REFUSED_ATEN and isinstance(overload, torch._ops.OpOverload):
            return
    raise _Refused(f"it calls {str(target)[:80]!r}, which is not an aten operator known here")


def _check_inference(node: dict[str, Any]) -> None:
    for given in node["inputs"]:
        if given["name"] in ("training", "train") and given["arg"].get("as_bool"):
            raise _Refused(
                f"its operator {node['target']!r} is in training mode; call model.eval() before"
                " the export"
            )


def _check_expression(text: object) -> None:
    """Accept sums, products and divisions of symbols and integers, which PyTorch evaluates."""
    try:
        accepted = _is_expression(ast.parse(str(text), mode="eval").body)
    except SyntaxError:
        accepted = False
    if not accepted:
        raise _Refused(f"it holds the expression {str(text)[:60]!r}")


def _is_expression(node: ast.expr) -> bool:
    match node:
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))], assumptions):
            return _NAME.fullmatch(name) is not None and all(
                isinstance(given.value, ast.Constant) for given in assumptions
            )
        case ast.Call(ast.Name(function), arguments, []):
            return function in _SYMBOLIC_CALLS and all(map(_is_expression, arguments))
        case ast.BinOp(
            left, ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod(), right
        ):
            return _is_expression(left) and _is_expression(right)
        case ast.UnaryOp(ast.USub(), operand):
            return _is_expression(operand)
        case ast.Name(name):
            return re.fullmatch(r"[su][0-9]+", name) is not None
        case ast.Constant(int()):
            return True
    return False


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
        raise InputError(
            f"The programme's input has {len(sizes)} dimensions, expected 4: (N, C, H, W)."
        )
    channels, height, width = (
        size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"]
        for size in sizes[1:]
    )
    return channels, height, width
