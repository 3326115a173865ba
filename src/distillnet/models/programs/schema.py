"""What a ``torch.export`` programme may say: its JSON document, read into calls of operators.

Only what is needed to compute is read. Metadata, guards, symbolic expressions and the declared
shapes of values are not looked at: shapes are worked out anew (see ``sizes``).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distillnet.models.programs.archive import DTYPES, Refused, whole
from distillnet.models.programs.operators import SCALAR, check_arguments, function_of

__all__ = ["Call", "Recipe", "Ref", "read_document"]

_MAX_CALLS = 20_000
_MAX_ITEMS = 2**16  # of a list among arguments
_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9_/-]+(\.[A-Za-z0-9_/-]+)*")
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    4: torch.preserve_format,
}
# Where a programme runs is the user's choice, and all tensors are plain ones.
_LEFT_OUT = frozenset({"device", "layout", "pin_memory"})
_NOTHING = "torch.ops.aten._assert_tensor_metadata.default"  # an assertion
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
class Ref:
    """A value by its name: an input or the result of a call before."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of an operator of the closed set.

    ``results`` names its value; where that is ``many``, the members of the list or tuple.
    """

    target: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[str, ...]
    many: bool


@dataclass(frozen=True)
class Recipe:
    """How a programme computes.

    Attributes:
        image: the name of the images.
        image_shape: (C, H, W); a size left open is that of the example.
        image_type: float32, or another floating-point type.
        parameters, buffers, constants: names of tensors by the names of values.
    """

    image: str
    image_shape: tuple[int, int, int]
    image_type: torch.dtype
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    constants: Mapping[str, str]
    calls: tuple[Call, ...]
    output: str


def read_document(document: Mapping[str, Any]) -> Recipe:
    """The calls of a programme; Refused for what is outside of the closed set.

    A document that is damaged may raise any other exception.
    """
    module = document["graph_module"]
    root = module["module_call_graph"][0]["signature"]
    if json.loads(root["in_spec"])[1] != _ONE_TENSOR_IN:
        raise Refused("its input is not one tensor, passed by position")
    if json.loads(root["out_spec"])[1] != _LEAF:
        raise Refused("its output is not one tensor")
    graph = module["graph"]
    if graph.get("custom_obj_values"):
        raise Refused("it holds custom objects, which are pickles")
    sources: dict[str, dict[str, str]] = {"parameter": {}, "buffer": {}, "tensor_constant": {}}
    images = []
    for spec in module["signature"]["input_specs"]:
        ((kind, given),) = spec.items()
        if kind == "user_input":
            images.append(str(given["arg"]["as_tensor"]["name"]))
        elif kind in sources:
            tensor = given[f"{kind}_name"]
            _require_tensor_name(tensor)
            sources[kind][str(given["arg"]["name"])] = tensor
        else:
            raise Refused(f"it uses {str(kind)[:60]!r} as an input")
    outputs = []
    for spec in module["signature"]["output_specs"]:
        ((kind, given),) = spec.items()
        if kind != "user_output":
            raise Refused(f"it uses {str(kind)[:60]!r} as an output")
        outputs.append(str(given["arg"]["as_tensor"]["name"]))
    if len(images) != 1 or len(outputs) != 1:
        raise Refused(f"it has {len(images)} inputs and {len(outputs)} outputs")
    fixed = {images[0], *(name for names in sources.values() for name in names)}
    if len(graph["nodes"]) > _MAX_CALLS:
        raise Refused(f"it has {len(graph['nodes'])} calls, more than {_MAX_CALLS}")
    calls = [_call(node, fixed) for node in graph["nodes"] if node["target"] != _NOTHING]
    declared = graph["tensor_values"][images[0]]
    shape, dtype = _image_shape(declared["sizes"]), DTYPES[declared["dtype"]]
    if not dtype.is_floating_point:
        raise Refused(f"its input is of type {dtype} instead of normalised images")
    parameters, buffers, constants = sources.values()
    return Recipe(images[0], shape, dtype, parameters, buffers, constants, tuple(calls), outputs[0])


def _require_tensor_name(name: object) -> None:
    # Layers may be named block1-0 or conv2/3x3.
    if not isinstance(name, str) or not _QUALIFIED_NAME.fullmatch(name):
        raise Refused(f"it holds the tensor name {str(name)[:60]!r}")


def _image_shape(sizes: list[dict[str, Any]]) -> tuple[int, int, int]:
    if len(sizes) != 4:
        raise Refused(f"its input has {len(sizes)} dimensions instead of the 4 of (N, C, H, W)")
    if "as_int" in sizes[0]:
        raise Refused("it takes a fixed number of images, not a dynamic batch")
    channels, height, width = (
        whole(size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"])
        for size in sizes[1:]
    )
    return channels, height, width


def _call(node: Mapping[str, Any], fixed: set[str]) -> Call:
    target = node["target"]
    function = function_of(target)
    results, many = _results(node["outputs"])
    if target in SCALAR:
        return Call(target, function, tuple(map(_operand, node["inputs"])), {}, results, many)
    given = {str(entry["name"]): _value(entry["arg"]) for entry in node["inputs"]}
    check_arguments(target, given)
    schema = function._schema  # type: ignore[attr-defined]
    first = next(iter(given.values()), None)
    if schema.is_mutable and isinstance(first, Ref) and first.name in fixed:
        raise Refused(f"its operator {target!r} changes the images or the weights")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_place = True
    for argument in schema.arguments:
        if argument.name not in given or argument.name in _LEFT_OUT:
            by_place = False
        elif by_place and not argument.kwarg_only:
            args.append(given[argument.name])
        else:
            kwargs[argument.name] = given[argument.name]
    known = {argument.name for argument in schema.arguments} | _LEFT_OUT
    if unknown := set(given) - known:
        raise Refused(f"its operator {target!r} is given {min(unknown)[:60]!r}")
    return Call(target, function, tuple(args), kwargs, results, many)


def _operand(entry: Mapping[str, Any]) -> Any:
    value = _value(entry["arg"])
    if not isinstance(value, Ref | int | float):
        raise Refused(f"it calculates with {str(entry['arg'])[:60]}")
    return value


def _results(outputs: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        return tuple(str(member["name"]) for member in outputs[0]["as_tensors"]), True
    names = []
    for output in outputs:
        ((kind, given),) = output.items()
        if kind == "as_tensor":
            names.append(str(given["name"]))
        elif kind in ("as_sym_int", "as_sym_bool"):
            names.append(str(given["as_name"]))
        elif kind != "as_none":
            raise Refused(f"it has a result {str(kind)[:60]!r}")
        else:
            names.append("")
    return tuple(names), len(names) > 1


def _value(argument: Mapping[str, Any]) -> Any:
    """An argument of a call, with ``Ref`` for what is computed before."""
    ((kind, given),) = argument.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Ref(str(given["name"]))
        case "as_int" | "as_bool":
            return _number(given)
        case "as_float":
            return _float(given)
        case "as_string":
            if not isinstance(given, str) or len(given) > 20:
                raise Refused(f"it holds the text {str(given)[:60]!r} as an argument")
            return given
        case "as_sym_int" | "as_sym_bool" | "as_optional_tensor":
            return _one_of(given)
        case "as_scalar_type":
            return DTYPES[given]
        case "as_memory_format":
            return _MEMORY_FORMATS[given]
        case "as_device" | "as_layout":
            return None  # left out
        case (
            "as_tensors"
            | "as_ints"
            | "as_bools"
            | "as_floats"
            | "as_sym_ints"
            | ("as_optional_tensors")
        ):
            return _list(kind, given)
    raise Refused(f"it uses {str(kind)[:60]!r}")


def _list(kind: str, given: object) -> list[Any]:
    if not isinstance(given, list) or len(given) > _MAX_ITEMS:
        raise Refused(f"it holds a list {kind!r} that is none, or one of more than {_MAX_ITEMS}")
    if kind == "as_tensors":
        return [Ref(str(item["name"])) for item in given]
    if kind == "as_floats":
        return [_float(item) for item in given]
    if kind in ("as_ints", "as_bools"):
        return [_number(item) for item in given]
    return [_one_of(item) for item in given]


def _one_of(given: Mapping[str, Any]) -> Any:
    """A value that is computed, a number or nothing."""
    ((kind, value),) = given.items()
    match kind:
        case "as_name":
            return Ref(str(value))
        case "as_tensor":
            return Ref(str(value["name"]))
        case "as_int" | "as_bool":
            return _number(value)
        case "as_none":
            return None
    raise Refused(f"it uses {str(kind)[:60]!r}")


def _number(value: object) -> int:
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise Refused(f"it holds {str(value)[:60]!r} where a whole number is expected")
    return value


def _float(value: object) -> float:
    if value in ("Infinity", "-Infinity", "NaN"):
        return float(str(value))
    if not isinstance(value, int | float):
        raise Refused(f"it holds {str(value)[:60]!r} where a number is expected")
    return float(value)
