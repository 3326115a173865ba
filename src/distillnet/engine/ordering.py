"""Filters in another order, so that those with like bitmaps share a block of channels.

A convolution's filters may stand in any order when whatever reads them follows: the columns of the
next layer's weights, a batch norm's constants, the parts of a concatenation; local response
normalisation, which looks at neighbours, picks its channels from where they are. Where something
cannot follow (an add wants both sides alike, scores have their order), filters stay as they are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.engine.need import Keeps
from distillnet.engine.steps import BLOCK
from distillnet.graph import Graph
from distillnet.graph.operators import LAYERS, Node

__all__ = ["alike_together", "orders_of_mission", "with_like_bitmaps_together"]

Order = NDArray[np.int64]  # new position -> old channel
_TOGETHER = 2 * BLOCK  # channels that share spans; packing.py makes strips of two blocks

_FOLLOWING = frozenset(
    {"act", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean", "pad",
     "unflatten", "mask", "affine", "layer_norm", "sample"}
)  # fmt: skip


def alike_together(keep_cp: NDArray[np.bool_], size: int = _TOGETHER) -> Order:
    """An order of channels in which every ``size`` of them have maps whose union is small.

    Each group begins with the channel that needs most places of those left and takes, one by one,
    what adds least to the places that the group computes anyway.

    Args:
        keep_cp: (C, places), of all missions side by side.

    >>> alike_together(np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool), 2).tolist()
    [0, 2, 1, 3]
    """
    maps = keep_cp.astype(np.float32)
    sizes = maps.sum(1)
    left = np.ones(len(maps), bool)
    order: list[int] = []
    while left.any():
        if len(order) % size == 0:
            chosen = int(np.where(left, sizes, -1).argmax())
            union = np.zeros(maps.shape[1], np.float32)
        else:
            # What a channel would add; of equals, the one that uses most of what is there.
            inside = maps @ union
            chosen = int(np.where(left, sizes - inside - 1e-3 * inside, np.inf).argmin())
        union = np.maximum(union, maps[chosen])
        left[chosen] = False
        order.append(chosen)
    return np.array(order, dtype=np.int64)


def with_like_bitmaps_together(
    graph: Graph, missions: Sequence[Keeps]
) -> tuple[Graph, tuple[dict[str, NDArray[np.bool_]], ...], dict[str, Order]]:
    """The graph with filters in an order that suits the missions, and their keep maps in it.

    At last the orders themselves, new position to old channel, of the nodes that have another.
    """
    wanted = _wanted_orders(graph, missions)
    while True:
        orders, blocked = _follow(graph, wanted)
        if not blocked:
            break
        wanted = {name: order for name, order in wanted.items() if name not in blocked}
    if not wanted:
        return graph, tuple(dict(keeps) for keeps in missions), {}
    permuted = tuple(
        {name: keep[orders[name]] if name in orders else keep for name, keep in keeps.items()}
        for keeps in missions
    )
    return _permuted(graph, wanted, orders), permuted, orders


def _wanted_orders(graph: Graph, missions: Sequence[Keeps]) -> dict[str, Order]:
    """By layer, the order that its own mask would like best."""
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for param in node.params.values():
            uses[param] = uses.get(param, 0) + 1
    wanted = {}
    source = {}  # by node, the layer whose channels it shows one by one
    for node in graph.nodes:
        if node.op in LAYERS and node.attrs.get("groups", 1) == 1:
            source[node.name] = node.name
        elif node.op in ("act", "affine") and node.inputs[0] in source:
            source[node.name] = source[node.inputs[0]]
        elif node.op == "mask" and node.inputs[0] in source:
            layer = graph[source[node.inputs[0]]]
            maps = [k[node.name].reshape(node.shape[0], -1) for k in missions if node.name in k]
            if not maps or any(uses[p] > 1 for p in layer.params.values()):
                continue
            keep_cp = np.concatenate(maps, 1)
            if not (keep_cp == keep_cp[:1]).all():
                wanted[layer.name] = alike_together(keep_cp)
    return wanted


def orders_of_mission(
    graph: Graph, code: Mapping[str, Order], wanted: Mapping[str, Order], own: Collection[str]
) -> dict[str, Order]:
    """The order of every node's channels where a mission has one of its own, as far as it may.

    Only the mission's own weights can follow it: what else is there for each channel, the constants
    of a batch norm for instance, stands in the code's order.

    Args:
        code: by layer, the orders that code was compiled with; ``wanted`` those of the mission.
        own: the layers whose weights are the mission's own.
    """
    while True:
        orders, blocked = _follow(graph, {**code, **wanted}, frozenset(wanted), own)
        if not blocked or not wanted:
            return orders
        left = {name: order for name, order in wanted.items() if name not in blocked}
        wanted = left if len(left) < len(wanted) else {}


def _follow(
    graph: Graph,
    wanted: Mapping[str, Order],
    of_mission: frozenset[str] = frozenset(),
    own: Collection[str] = (),
) -> tuple[dict[str, Order], frozenset[str]]:
    """The order of every node's channels, and the layers whose order something cannot follow.

    Orders of the layers ``of_mission`` are followed by the layers that are its ``own`` alone.
    """
    orders: dict[str, Order] = {}
    causes: dict[str, frozenset[str]] = {}
    blocked: set[str] = set()
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for param in node.params.values():
            uses[param] = uses.get(param, 0) + 1
    for node in graph.nodes:
        inputs = [orders[i] for i in node.inputs if i in orders]
        why = frozenset().union(*(causes.get(i, frozenset()) for i in node.inputs))
        shared = any(uses[p] > 1 for p in node.params.values())
        result: Order | None = None
        is_layer = node.op in LAYERS and node.attrs.get("groups", 1) == 1
        fixed = node.name not in own if is_layer else node.params or node.op in ("gather", "lrn")
        if fixed:
            blocked |= why & of_mission
        if is_layer:
            if inputs and shared:
                blocked |= why
            result, why = wanted.get(node.name), frozenset({node.name} & set(wanted))
        elif not inputs:
            pass
        elif shared:
            blocked |= why
        elif node.op in _FOLLOWING or _is_depthwise(graph, node):
            result = inputs[0]
        elif node.op == "flatten":
            places = int(np.prod(graph[node.inputs[0]].shape[1:]))
            result = (inputs[0][:, None] * places + np.arange(places)).reshape(-1)
        elif node.op == "lrn":  # its windows lie over the original order: see _permuted
            pass
        elif node.op == "cat":
            result = _side_by_side(graph, node, orders)
        elif node.op != "gather":  # which picks the channels from where they are now
            blocked |= why
        if result is not None:
            orders[node.name], causes[node.name] = result, why
    blocked |= causes.get(graph.output, frozenset())
    return orders, frozenset(blocked)


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if node.op != "conv":
        return False
    channels = graph[node.inputs[0]].shape[0]
    return bool(node.attrs["groups"] == channels == node.shape[0])


def _side_by_side(graph: Graph, node: Node, orders: Mapping[str, Order]) -> Order:
    parts, start = [], 0
    for name in node.inputs:
        width = graph[name].shape[0]
        parts.append(start + orders.get(name, np.arange(width)))
        start += width
    return np.concatenate(parts)


def _permuted(graph: Graph, wanted: Mapping[str, Order], orders: Mapping[str, Order]) -> Graph:
    params = dict(graph.params)
    nodes = []

    def pick(name: str, order: Order, dim: int = 0) -> None:
        tensor: Tensor = params[name]
        params[name] = tensor.index_select(dim, torch.from_numpy(order).to(tensor.device))

    for node in graph.nodes:
        before = orders.get(node.inputs[0]) if node.inputs else None
        if node.op in LAYERS and node.attrs.get("groups", 1) == 1:
            if node.name in wanted:
                for name in node.params.values():
                    pick(name, wanted[node.name])
            if before is not None:
                pick(node.params["weight"], before, 1)
        elif node.op == "gather" and before is not None:
            now = np.argsort(before)
            index = tuple(int(now[i]) for i in node.attrs["index"])
            node = replace(node, attrs={**node.attrs, "index": index})
        elif node.op == "lrn" and before is not None:
            back = tuple(np.argsort(before).tolist())
            pick_back = Node(
                f"{node.name}:order", "gather", node.inputs, node.shape, {"index": back}
            )
            nodes.append(pick_back)
            node = replace(node, inputs=(pick_back.name,))
        elif before is not None and node.op != "cat":
            for name in node.params.values():
                pick(name, before)
        nodes.append(node)
    return Graph(tuple(nodes), params, graph.output)
