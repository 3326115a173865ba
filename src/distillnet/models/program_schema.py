"""What a ``torch.export`` programme may hold: the checks of ``distillnet.models.programs``.

The graph is JSON. All of it is copied through ``clean_value``, which refuses whatever PyTorch would
look up, evaluate or paste into source code and is not known to be harmless.
"""

import ast
import json
import re
from typing import Any

import torch

__all__ = ["Refused", "clean_document", "clean_value", "require_name", "require_qualified_name"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Layers may be named block1-0 or conv2/3x3. What matters is that no quote ends the name early.
_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9_/-]+(\.[A-Za-z0-9_/-]+)*")
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


class Refused(Exception):  # noqa: N818 - it is what was found, like StopIteration
    """A file holds something that is not accepted; the message says what."""


def clean_document(document: Any) -> dict[str, Any]:
    """The programme without its metadata; Refused for what cannot be dropped nor accepted."""
    graph_module = document["graph_module"]
    root = graph_module["module_call_graph"][0]["signature"]
    if json.loads(root["in_spec"])[1] != _ONE_TENSOR_IN:
        raise Refused("its input is not one tensor, passed by position")
    if json.loads(root["out_spec"])[1] != _LEAF:
        raise Refused("its output is not one tensor")
    graph = dict(graph_module["graph"])
    for node in graph["nodes"]:
        _check_target(node["target"])
        _check_inference(node)
    # Metadata is for people and for tools; parts of it name functions to look up.
    graph["nodes"] = [node | {"metadata": {}} for node in graph["nodes"]]
    if graph.pop("custom_obj_values", None):
        raise Refused("it holds custom objects, which are pickles")
    signature: dict[str, Any] = {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, _ONE_TENSOR_IN]),
        "out_spec": json.dumps([1, _LEAF]),
        "forward_arg_names": None,
    }
    ranges = {}
    for symbol, limits in document["range_constraints"].items():
        require_name(symbol, "symbol")
        ranges[symbol] = {key: _whole(limits[key]) for key in ("min_val", "max_val")}
    for verifier in document["verifiers"]:
        require_name(verifier, "verifier")
    return {
        "graph_module": {
            "graph": clean_value(graph) | {"custom_obj_values": {}},
            "signature": clean_value(graph_module["signature"]),
            "module_call_graph": [{"fqn": "", "signature": signature}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {str(k): int(v) for k, v in document["opset_version"].items()},
        "range_constraints": ranges,
        "schema_version": {str(k): int(v) for k, v in document["schema_version"].items()},
        "verifiers": document["verifiers"],
        "torch_version": str(document["torch_version"]),
        "guards_code": [],  # Python source
    }


def clean_value(value: Any) -> Any:
    """A copy of a part of the graph, its names and expressions checked, its devices the CPU."""
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for key, item in value.items():
        require_name(key, "name")
        if key in _UNSUPPORTED_KEYS:
            raise Refused(f"it uses {key!r}")
        if key in ("device", "as_device"):
            item = {"type": "cpu", "index": None}
        elif key == "expr_str":
            _check_expression(item)
        elif key in _QUALIFIED_KEYS:
            require_qualified_name(item, "tensor name")
        elif key in ("name", "as_name") and item is not None and item != "":
            require_name(item, "name")
        cleaned[key] = clean_value(item)
    return cleaned


def _whole(limit: object) -> int | None:
    if limit is not None and not isinstance(limit, int):
        raise Refused(f"it holds the limit {str(limit)[:60]!r} of a size")
    return limit


def require_name(text: object, what: str) -> None:
    """Refuse anything but an identifier, since names end up in generated source code."""
    _require(_NAME, text, what)


def require_qualified_name(text: object, what: str) -> None:
    """Refuse anything but layers' names with dots between, such as block1-0.conv.weight."""
    _require(_QUALIFIED_NAME, text, what)


def _require(pattern: re.Pattern[str], text: object, what: str) -> None:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise Refused(f"it holds the {what} {str(text)[:60]!r}")


def _check_target(target: object) -> None:
    if target in _SCALAR_OPERATORS:
        return
    found = _ATEN.fullmatch(target) if isinstance(target, str) else None
    if found is not None:
        public = not found[1].startswith("_") or found[1] in _PRIVATE_ATEN
        overload = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if public and found[1] not in _REFUSED_ATEN and isinstance(overload, torch._ops.OpOverload):
            return
    raise Refused(f"it calls {str(target)[:80]!r}, which is not an aten operator known here")


def _check_inference(node: dict[str, Any]) -> None:
    for given in node["inputs"]:
        if given["name"] in ("training", "train") and given["arg"].get("as_bool"):
            raise Refused(
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
        raise Refused(f"it holds the expression {str(text)[:60]!r}")


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
