"""Networks as plain values, and the file of weights that all missions of a network share.

The shared file is a safetensors file of the original graph's tensors, batch norms folded, with its
nodes in the metadata. A mission is told by what differs from them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.files.regular import read_regular
from distillnet.graph import Graph, Node, run
from distillnet.graph.operators import APPLY

__all__ = [
    "Base",
    "NodeDocument",
    "base_of",
    "named_as",
    "node_documents",
    "nodes_of",
    "read_base",
    "write_base",
]

_AT_MOST = 2**32  # bytes
_NODES, _OUTPUT, _MODEL = "nodes", "output", "model"


class NodeDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node of a graph."""

    name: str
    op: str
    inputs: list[str]
    shape: list[int]
    attrs: dict[str, Any]
    params: dict[str, str]


@dataclass(frozen=True)
class Base:
    """The original network, and the hash of the file that it came from."""

    model: str
    graph: Graph
    sha256: str


def node_documents(graph: Graph) -> list[NodeDocument]:
    """A graph's nodes as plain values."""
    return [
        NodeDocument(n.name, n.op, list(n.inputs), list(n.shape), dict(n.attrs), dict(n.params))
        for n in graph.nodes
    ]


def nodes_of(documents: list[NodeDocument], params: Mapping[str, Tensor]) -> tuple[Node, ...]:
    """The nodes again.

    Raises:
        ValueError: an operator, a value or a tensor that there is not.
    """
    seen: set[str] = set()
    for n in documents:
        if n.op not in APPLY and n.op != "input":
            raise ValueError(f"the operator {n.op!r}")
        if unknown := [i for i in n.inputs if i not in seen]:
            raise ValueError(f"{n.name!r} reads {unknown[0]!r}, which no earlier node makes")
        if missing := [p for p in n.params.values() if p not in params]:
            raise ValueError(f"{n.name!r} has no tensor {missing[0]!r}")
        seen.add(n.name)
    return tuple(
        Node(n.name, n.op, tuple(n.inputs), tuple(n.shape), _tuples(n.attrs), n.params)
        for n in documents
    )


def _tuples(value: Any) -> Any:
    """Lists back as the tuples that nodes hold; dictionaries as they are."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def named_as(graph: Graph, module: nn.Module) -> Graph:
    """The graph that was captured of a module, its tensors named as the module names them.

    A programme keeps the names that tensors had before it was cut, as far as names of attributes
    may be; capture names them by their nodes. So a package knows what a tensor was cut from.
    """
    names = {
        (tensor.data_ptr(), tensor.shape): name
        for name, tensor in module.state_dict().items()
        if tensor.numel()
    }
    new = {old: names.get((p.data_ptr(), p.shape), old) for old, p in graph.params.items()}
    if len(set(new.values())) != len(new):  # shared by several layers, which may keep their own
        return graph
    nodes = tuple(
        replace(n, params={role: new[old] for role, old in n.params.items()}) for n in graph.nodes
    )
    return Graph(nodes, {new[old]: p for old, p in graph.params.items()}, graph.output)


def base_of(model: str, graph: Graph) -> bytes:
    """The content of the shared file of a network: the same for the same weights."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in graph.params.items()}
    metadata = {
        _MODEL: model,
        _OUTPUT: graph.output,
        _NODES: msgspec.json.encode(node_documents(graph)).decode(),
    }
    # One entry: the library writes several in any order, and the file is known by its hash.
    return save(tensors, {"distillnet": msgspec.json.encode(metadata).decode()})


def write_base(model: str, graph: Graph, path: Path) -> None:
    """Write the shared file."""
    path.write_bytes(base_of(model, graph))


def read_base(path: Path) -> Base:
    """The shared file of a network.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        data = read_regular(path, _AT_MOST)
        header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
        told = msgspec.json.decode(header["__metadata__"]["distillnet"], type=dict[str, str])
        documents = msgspec.json.decode(told[_NODES], type=list[NodeDocument])
        params = load(data)
        graph = Graph(nodes_of(documents, params), params, told[_OUTPUT])
        if graph.output not in {n.name for n in graph.nodes}:
            raise ValueError(f"no node {graph.output!r}")
        _check_runs(graph)
        return Base(told[_MODEL], graph, hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected the file of weights that `mission "
            "pack --base` wrote"
        ) from error
    except (
        msgspec.MsgspecError, SafetensorError, KeyError, TypeError, ValueError, RecursionError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} is no file of weights that `mission pack --base` wrote ({str(error)[:200]}); "
            "write it anew"
        ) from error


def _check_runs(graph: Graph) -> None:
    """Raise ValueError where tensors do not fit the nodes; nothing is computed for it."""
    meta = graph.to("meta")
    try:
        x = torch.empty(2, *graph.input.shape, device="meta")
        run(meta, {graph.input.name: x})
    except Exception as error:
        raise ValueError(f"tensors that do not fit: {str(error).splitlines()[:1]}") from error
