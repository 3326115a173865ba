"""Programmes as their JSON: small ones, and random calls of any operator that one may call.

An input is ``models/model.json`` with one more key, ``order``: the numbers of a constant of
indices.
"""

import contextlib
import io
import json
import random
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mutate
from distillnet.errors import InputError
from distillnet.models import load_model
from distillnet.models.programs import operators, sizes

__all__ = ["documents", "in_graph", "read_graph"]

_SIDE = 6
_ORDER = [2, 0, 1, 3]
# What a programme may need beyond what a fuzzer waits for; the limits that are real are tested in
# tests/models.
_LIMITS = {"_MAX_ALIVE": 2**20, "_MAX_IN_ALL": 2**22, "_MAX_MACS": 2**24}


class _Net(nn.Module):
    """A convolution of each kind, channels by constant indices, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.each = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.register_buffer("order", torch.tensor(_ORDER))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2, 1)
        x = torch.cat([self.each(F.pad(x, (1, 1, 1, 1))), x[:, self.order]], 1)
        a, b = x.chunk(2, 1)
        x = F.interpolate(self.norm(a * b.sigmoid()), scale_factor=2.0)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@cache
def _records() -> tuple[Mapping[str, bytes], dict[str, Any]]:
    """What an exported programme consists of, and its document without what is never read."""
    options = ({0: torch.export.Dim("batch", min=1)},)
    x = torch.rand(2, 3, _SIDE, _SIDE)
    file = io.BytesIO()
    torch.export.save(torch.export.export(_Net().eval(), (x,), dynamic_shapes=options), file)
    with zipfile.ZipFile(file) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    document = json.loads(records.pop("models/model.json"))
    graph = document["graph_module"]["graph"]
    (image,) = (v for v in graph["inputs"] if v["as_tensor"]["name"] == "x")
    name = image["as_tensor"]["name"]
    graph["tensor_values"] = {name: graph["tensor_values"][name]}
    for node in graph["nodes"]:
        node["metadata"] = {}
    return {n: data for n, data in records.items() if "sample_inputs" not in n}, document


@cache
def _order_record() -> str:
    """The name of the record with the indices."""
    (name,) = (
        n for n, data in _records()[0].items() if data == torch.tensor(_ORDER).numpy().tobytes()
    )
    return name


def documents(folder: Path) -> list[bytes]:
    """A network, and others with calls of some operators put into it, all of them accepted."""
    right = _dumped(_records()[1] | {"order": _ORDER})
    seeds, draw = [right], random.Random(0)
    for _ in range(60):
        data = in_graph(right, draw)
        with contextlib.suppress(InputError):
            read_graph(data, folder)
            seeds.append(data)
    return seeds


def _dumped(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def read_graph(data: bytes, folder: Path) -> object:
    """Load the programme and compute it, as every command does first."""
    records = dict(_records()[0])
    with contextlib.suppress(Exception):  # then the reader has to find out by itself
        document = json.loads(data)
        order = [int(i) for i in document.pop("order")][: len(_ORDER)]
        numbers = torch.tensor(order + _ORDER[len(order) :])
        records[_order_record()] = numbers.numpy().tobytes()
        data = _dumped(document)
    path = folder / "graph.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**records, "models/model.json": data}.items():
            archive.writestr(f"archive/{name}", content)
    with mock.patch.multiple(sizes, **_LIMITS):
        return load_model(str(path), mean=(0.5,) * 3, std=(0.5,) * 3)


# Random calls ---------------------------------------------------------------------------------

_NAMES = [
    f"{name}.{overload}"
    for name, overloads in operators._OVERLOADS.items()
    for overload in overloads
]
_WORDS = ("valid", "same", "constant", "reflect", "replicate", "circular", "none", "tanh")
_SMALL = (-4, -3, -2, -1, 0, 1, 1, 1, 2, 2, 2, 3, 4, 6)
_LARGE = (-(2**63), -(2**31), 2**16, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 10**9)
_FLOATS = (0.0, 0.5, 1.0, 2.0, -1.0, 1e-30, 1e30, "NaN", "Infinity", "-Infinity")


def in_graph(data: bytes, draw: random.Random) -> bytes:
    """Calls put in, taken out or given other arguments; other indices; or damage as of any JSON."""
    if draw.random() < 0.1:
        return mutate.in_json(data, draw)
    try:
        document = json.loads(data)
        nodes = document["graph_module"]["graph"]["nodes"]
        for _ in range(draw.choice((1, 1, 2, 3))):
            _change(document, nodes, draw)
        return _dumped(document)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return mutate.in_json(data, draw)  # it was damaged before


def _change(document: dict[str, Any], nodes: list[Any], draw: random.Random) -> None:
    kind = draw.randrange(12)
    if kind == 0 and len(nodes) > 1:
        del nodes[draw.randrange(len(nodes))]
    elif kind == 1:
        size = draw.randrange(1, 5)
        document["order"] = [draw.choice((*_SMALL, *_SMALL, *_LARGE)) for _ in range(size)]
    elif kind <= 4 and nodes:
        given = draw.choice(draw.choice(nodes)["inputs"])
        given["arg"] = mutate.changed(given["arg"], draw)
    elif len(nodes) < 40:
        at = draw.randrange(len(nodes) + 1)
        known = [v["as_tensor"]["name"] for v in document["graph_module"]["graph"]["inputs"]]
        numbers = []
        for node in nodes[:at]:
            for output in node["outputs"]:
                known += [output["as_tensor"]["name"]] if "as_tensor" in output else []
                known += [o["name"] for o in output.get("as_tensors", ())]
                numbers += [output["as_sym_int"]["as_name"]] if "as_sym_int" in output else []
        nodes.insert(at, _random_call(known, numbers, draw))


def _random_call(known: list[str], numbers: list[str], draw: random.Random) -> dict[str, Any]:
    """A call of any operator of the set with arguments of the right types."""
    short = draw.choice(_NAMES)
    target = f"torch.ops.aten.{short}"
    schema = operators.function_of(target)._schema  # type: ignore[attr-defined]
    inputs = []
    for argument in schema.arguments:
        kind = str(argument.real_type)
        if argument.name in ("device", "layout", "pin_memory"):
            continue
        if argument.has_default_value() and draw.random() < 0.5:
            continue
        first = argument is schema.arguments[0]
        inputs.append(
            {"name": argument.name, "arg": _argument(kind, known, numbers, first, draw), "kind": 1}
        )
    results = [f"r{draw.randrange(2**40):x}_{i}" for i in range(max(1, len(schema.returns)))]
    returns = str(schema.returns[0].type)
    if returns == "List[Tensor]":
        parts = draw.randrange(1, 5)
        outputs = [{"as_tensors": [{"name": f"{results[0]}_{i}"} for i in range(parts)]}]
    elif returns == "int":
        outputs = [{"as_sym_int": {"as_name": results[0]}}]
    else:
        outputs = [{"as_tensor": {"name": name}} for name in results]
    return {"target": target, "inputs": inputs, "outputs": outputs, "metadata": {}}


def _argument(
    kind: str, known: list[str], numbers: list[str], first: bool, draw: random.Random
) -> dict[str, Any]:
    if kind.startswith("Optional[") and kind != "Optional[Tensor]":
        if draw.random() < 0.2:
            return {"as_none": True}
        kind = kind[len("Optional[") : -1]
    n = draw.randrange(1, 5)
    late = known[-3:] if first or draw.random() < 0.5 else known  # the results before
    tensor = {"name": draw.choice(late)}
    match kind:
        case "Tensor":
            return {"as_tensor": tensor}
        case "Optional[Tensor]":
            return {"as_tensor": tensor} if draw.random() < 0.7 else {"as_none": True}
        case "List[Tensor]":
            return {"as_tensors": [{"name": draw.choice(known)} for _ in range(n)]}
        case "List[Optional[Tensor]]":
            given = [{"as_none": True}] * draw.randrange(3) + [{"as_tensor": {"name": "b_order"}}]
            return {"as_optional_tensors": given}
        case "int" | "SymInt":
            if numbers and draw.random() < 0.2:
                return {"as_sym_int": {"as_name": draw.choice(numbers)}}
            return {"as_int": _number(draw)}
        case "List[int]" | "List[SymInt]":
            return {"as_ints": [_number(draw) for _ in range(n)]}
        case "bool":
            return {"as_bool": draw.random() < 0.5}
        case "List[float]":
            return {"as_floats": [draw.choice(_FLOATS) for _ in range(n)]}
        case "str":
            return {"as_string": draw.choice(_WORDS)}
    if "number" in kind.lower() or "scalar" in kind.lower() or kind == "float":
        return (
            {"as_float": draw.choice(_FLOATS)} if draw.random() < 0.7 else {"as_int": _number(draw)}
        )
    return draw.choice(({"as_scalar_type": draw.randrange(1, 14)}, {"as_memory_format": 1}))


def _number(draw: random.Random) -> int:
    return draw.choice(_SMALL if draw.random() < 0.9 else _LARGE)
