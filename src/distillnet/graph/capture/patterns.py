"""What export takes apart and we put together again: LRN, and batch norm after a convolution."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from distillnet.graph.graph import Graph
from distillnet.graph.operators import Node

__all__ = ["Lrn", "fold_batch_norm", "match_lrn"]


@dataclass(frozen=True)
class Lrn:
    """A local response normalisation of ``source``, and its windows' channels where some are gone.

    ``positions`` gives a tensor (C,): where the channels that are left used to be.
    """

    source: fx.Node
    attrs: dict[str, Any]
    positions: fx.Node | None = None


def match_lrn(node: fx.Node) -> Lrn | None:
    """Recognise torch.nn.LocalResponseNorm, and what ``operators`` writes for it in model.pt2."""
    return _match_module(node) or _match_band(node)


def _name(node: Any) -> str:
    target = getattr(node, "target", None)
    schema = getattr(target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema is not None else ""


def _args(node: Any, op: str) -> Any:
    """The arguments of a node that is a call of ``op``, else None."""
    return node.args if _name(node) == op else None


def _match_module(node: fx.Node) -> Lrn | None:
    """Export writes the module as ten operators: x / (k + alpha * avg_pool3d(pad(x * x)))^beta."""
    if not (top := _args(node, "div")) or not (power := _args(top[1], "pow")):
        return None
    if not (plus := _args(power[0], "add")) or not (times := _args(plus[0], "mul")):
        return None
    inner = times[0]
    moved = {"view", "squeeze", "unsqueeze", "clone", "_unsafe_view"}
    while _name(inner) in moved:
        inner = inner.args[0]
    if not (pooled := _args(inner, "avg_pool3d")):
        return None
    size, inner, pads = pooled[1][0], pooled[0], []
    while _name(inner) in moved | {"constant_pad_nd", "pad"}:
        if _name(inner) not in moved:
            pads.append(inner.args)
        inner = inner.args[0]
    if not _averages_channels(pooled, size) or [list(pad[1]) for pad in pads] != [
        [0, 0, 0, 0, size // 2, (size - 1) // 2]
    ]:
        return None  # another window, of which the noise that captures are compared on tells little
    if any(value not in (0, "constant", None) for value in pads[0][2:]):
        return None
    square = _args(inner, "mul")
    if not square or square[0] is not top[0] or square[1] is not top[0]:
        return None
    channels = top[0].meta["val"].shape[1]
    attrs = {"size": size, "alpha": times[1], "beta": power[1], "k": plus[1]}
    return Lrn(top[0], attrs | {"channels": channels})


def _averages_channels(pooled: tuple[Any, ...], size: int) -> bool:
    """Whether avg_pool3d of these arguments takes the mean of ``size`` channels at each place."""
    defaults: tuple[Any, ...] = (None, None, (), (0, 0, 0), False, True, None)
    _, kernel, stride, padding, up, counts, divisor = (*pooled, *defaults[len(pooled) :])
    return (
        tuple(kernel) == (size, 1, 1)
        and tuple(stride) in ((1,), (1, 1, 1))
        and set(padding) == {0}
        and not up
        and bool(counts)
        and divisor is None
    )


def _match_band(node: fx.Node) -> Lrn | None:
    """x * (k + conv(x * x, band)) ** -beta, the band made of the channels' positions."""
    divided = _args(node, "div")
    if not (top := divided or _args(node, "mul")) or len(top) != 2:
        return None
    source, factor = top
    # x / (root * sqrt(root)) of the root, or as it was written before, x times that of 1 / root.
    first = "sqrt" if divided else "rsqrt"
    if not divided and (power := _args(factor, "pow")):
        base, beta = power[0], -power[1]
    elif (product := _args(factor, "mul")) and (root := _args(product[0], first)):
        again = _args(product[1], "sqrt")
        if not again or again[0] is not product[0]:
            return None
        base, beta = root[0], 0.75
    else:
        return None
    if not (conv := _args(base, "conv2d")) or len(conv) < 3:
        return None
    square, bias = _args(conv[0], "mul"), _args(conv[2], "full")
    if not square or square[0] is not source or square[1] is not source or not bias:
        return None
    band = conv[1]
    while _name(band) == "unsqueeze":
        band = band.args[0]
    share = _args(band, "mul")
    if not share:
        return None
    if of_each := _args(share[0], "full"):
        value, equal = of_each[1], _args(share[1], "eq")
    else:  # as it was written before 0.2
        inside = _args(share[0], "_to_copy")
        value, equal = share[1], _args(inside[0], "eq") if inside else None
    window = _args(equal[0], "clamp") if equal else None
    if not equal or not window or window[0] is not equal[1] or window[1] != 0:
        return None
    offset = _args(window[0], "add")
    distance = _args(offset[0], "sub") if offset else None
    here = _args(distance[0], "unsqueeze") if distance else None
    if not here:
        return None
    size = window[2] + 1
    attrs = {"size": size, "alpha": value * size, "beta": beta, "k": bias[1]}
    attrs["channels"] = source.meta["val"].shape[1]
    return Lrn(source, attrs, here[0] if here[0].op == "placeholder" else None)


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
