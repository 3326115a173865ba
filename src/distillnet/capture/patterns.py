"""What export takes apart and we put together again: LRN, and batch norm after a convolution."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from distillnet.graph import Graph
from distillnet.operators import Node

__all__ = ["fold_batch_norm", "match_lrn"]


def match_lrn(node: fx.Node) -> tuple[fx.Node, dict[str, Any]] | None:
    """Recognise torch.nn.LocalResponseNorm, which export writes as ten operators.

    x / (k + alpha * avg_pool3d(pad(x * x)))^beta
    """

    def name(n: Any) -> str:
        target = getattr(n, "target", None)
        schema = getattr(target, "_schema", None)
        return schema.name.removeprefix("aten::") if schema is not None else ""

    def step(n: Any, op: str) -> Any:
        return n.args if name(n) == op else None

    if not (top := step(node, "div")) or not (power := step(top[1], "pow")):
        return None
    if not (plus := step(power[0], "add")) or not (times := step(plus[0], "mul")):
        return None
    inner = times[0]
    moved = {"view", "squeeze", "unsqueeze", "clone", "_unsafe_view"}
    while name(inner) in moved:
        inner = inner.args[0]
    if not (pooled := step(inner, "avg_pool3d")):
        return None
    inner = pooled[0]
    while name(inner) in moved | {"constant_pad_nd"}:
        inner = inner.args[0]
    square = step(inner, "mul")
    if not square or square[0] is not top[0] or square[1] is not top[0]:
        return None
    channels = top[0].meta["val"].shape[1]
    attrs = {"size": pooled[1][0], "alpha": times[1], "beta": power[1], "k": plus[1]}
    return top[0], attrs | {"channels": channels}


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each affine into the convolution or linear layer that feeds only it.

    w' = w * scale per output channel, b' = b * scale + shift. A convolution whose weights are
    shared with another keeps them, and its affine stays.
    """
    uses: dict[str, int] = {}
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for param in node.params.values():
            uses[param] = uses.get(param, 0) + 1
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    params = dict(graph.params)
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs))
        source = nodes.get(node.inputs[0]) if node.inputs else None
        if (
            node.op != "affine"
            or source is None
            or source.op not in ("conv", "linear")
            or readers[source.name] != 1
            or any(uses[p] != 1 for p in source.params.values())
        ):
            nodes[node.name] = node
            continue
        scale, shift = params[node.params["scale"]], params[node.params["shift"]]
        weight = params[source.params["weight"]]
        old_bias = params.get(source.params.get("bias", ""), torch.zeros_like(shift))
        bias_name = source.params.get("bias", f"{source.name}.bias")
        params[source.params["weight"]] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        params[bias_name] = old_bias * scale + shift
        nodes[source.name] = replace(source, params={**source.params, "bias": bias_name})
        renamed[node.name] = source.name
        readers[source.name] = readers.get(node.name, 0)
        uses[bias_name] = 1
    used = {p for node in nodes.values() for p in node.params.values()}
    kept = {name: tensor for name, tensor in params.items() if name in used}
    output = renamed.get(graph.output, graph.output)
    return Graph(tuple(nodes.values()), kept, output)
