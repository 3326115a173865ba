"""Carrying out a plan: ``mask`` keeps all shapes, ``compact`` cuts channels out.

``mask`` is the reference for what a plan means; ``compact`` and every runtime must agree with it.
Both return a new graph and leave the old one alone. ``split`` writes a layer of low rank as two.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.leading import leading_vectors
from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.thin import Split, halves, join, matrix
from distillnet.graph import Graph, fast_layout
from distillnet.graph.channels import Channels
from distillnet.graph.operators import LAYERS, WHOLE_ROLES, Node

__all__ = ["compact", "insert_masks", "mask", "split"]


def mask(graph: Graph, plan: Plan) -> Graph:
    """The graph with every removed neuron set to zero at its site; all scores stay.

    Shapes are those of ``graph``; ``plan.outputs`` is left to whoever reads the scores.
    """
    taken, masks = {node.name for node in graph.nodes}, {}
    device = next((p.device for p in graph.params.values()), None)
    for node in graph.nodes:
        keep = plan.keep.get(node.name)
        if keep is not None and not bool(keep.all()):
            name = f"{node.name}:mask"
            while name in taken:  # of an earlier plan
                name += "+"
            taken.add(name)
            masks[node.name] = name, keep.to(device)
    return insert_masks(graph, masks)


def insert_masks(graph: Graph, masks: Mapping[str, tuple[str, Tensor]]) -> Graph:
    """The graph with a mask behind some nodes, by node its name and keep map (C, H, W) or (F,)."""
    nodes: list[Node] = []
    params = dict(graph.params)
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs)))
        if node.name in masks:
            name, keep = masks[node.name]
            params[f"{name}.keep"] = keep
            nodes.append(Node(name, "mask", (node.name,), node.shape, {}, {"keep": f"{name}.keep"}))
            renamed[node.name] = name
    return Graph(tuple(nodes), params, renamed.get(graph.output, graph.output))


def compact(graph: Graph, channels: Channels, plan: Plan) -> Graph:
    """The graph with removed channels gone, partially removed neurons masked, scores sliced.

    Equal to ``mask`` to rounding, scores in the order of ``plan.outputs``. Layers that the plan
    splits become two.
    """
    gone = removed_classes(channels, plan)
    left = {name: np.flatnonzero(~gone[ids]) for name, ids in channels.of.items()}
    masked = mask(graph, plan)
    for node in masked.nodes:  # the masks' own channels are those of the site
        if node.op == "mask" and node.name not in left:
            left[node.name] = left[node.inputs[0]]
    params: dict[str, Tensor] = {}
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in masked.nodes:
        node = replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs))
        kept = left[node.name]
        sliced = {
            name: _slice(masked.params[name], role, node, kept, left)
            for role, name in node.params.items()
        }
        if node.op == "mask" and bool(sliced[node.params["keep"]].all()):
            renamed[node.name] = node.inputs[0]  # nothing of it is partial
            continue
        params.update(sliced)
        nodes.append(_shrink(node, kept, left, masked, params))
    result = Graph(tuple(nodes), params, renamed.get(masked.output, masked.output))
    for layer, how in plan.splits.items():
        result = split(result, layer, how)
    return _order_outputs(result, channels, plan, gone)


def split(graph: Graph, layer: str, how: Split) -> Graph:
    """The graph with a layer as two: ``how.rank`` filters, and the combination of them that it was.

    Singular vectors of the weight's matrix (``thin.matrix``): exact to rounding where it has this
    rank, else the nearest. The second of the two keeps the layer's name.

    >>> import torch
    >>> from distillnet.graph.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4)), (2, 2),
    ...                 channels=1)
    >>> [node.shape for node in split(graph, graph.output, Split(1)).nodes]
    [(1, 2, 2), (4,), (1,), (4,)]
    """
    node = graph[layer]
    weight = graph.params[node.params["weight"]]
    filters, combination = _factors(matrix(weight.double(), separable=how.separable), how.rank)
    weights = join(filters, combination, weight.shape, separable=how.separable)
    names = [f"{node.params['weight']}:{role}" for role in ("basis", "combination")]
    params = {k: v for k, v in graph.params.items() if k != node.params["weight"]}
    for name, half in zip(names, weights, strict=True):
        params[name] = fast_layout(half.to(weight.dtype))
    one, two = halves(graph, node, separable=how.separable)
    first = replace(
        node,
        name=f"{layer}:basis",
        shape=(len(filters), *one.places),
        attrs={**node.attrs, **one.geometry},
        params={"weight": names[0]},
    )
    second = replace(
        node,
        inputs=(first.name,),
        attrs={**node.attrs, **two.geometry},
        params={**node.params, "weight": names[1]},
    )
    at = graph.nodes.index(node)
    return Graph((*graph.nodes[:at], first, second, *graph.nodes[at + 1 :]), params, graph.output)


def _factors(matrix_dm: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Filters (rank, D) and combination (rank, M) whose product is nearest to the matrix.

    Eigenvectors of the smaller of both products with itself: several times as fast as a singular
    value decomposition, whose values nobody asks for.
    """
    if len(matrix_dm) < matrix_dm.shape[1]:
        filters = _leading(matrix_dm, rank)
        return filters, filters @ matrix_dm
    combination = _leading(matrix_dm.T, rank)
    return combination @ matrix_dm.T, combination


def _leading(wide_sl: Tensor, rank: int) -> Tensor:
    """Left singular vectors (rank, S) of a matrix (S, L)."""
    return leading_vectors(lambda v: wide_sl @ (wide_sl.T @ v), wide_sl, rank).T


def _slice(
    tensor: Tensor, role: str, node: Node, kept: NDArray[np.int64], left: dict[str, NDArray]
) -> Tensor:
    if role in WHOLE_ROLES:
        return tensor.clone()
    result = tensor[torch.from_numpy(kept).to(tensor.device)]
    if role == "weight" and node.op in LAYERS and node.attrs.get("groups", 1) == 1:
        inputs = left[node.inputs[0]]
        result = result.index_select(1, torch.from_numpy(inputs).to(tensor.device))
    return result.clone()


def _shrink(
    node: Node,
    kept: NDArray[np.int64],
    left: dict[str, NDArray],
    graph: Graph,
    params: dict[str, Tensor],
) -> Node:
    """The node with its shape and the attributes that count channels made to fit."""
    shape = (len(kept), *node.shape[1:])
    attrs = dict(node.attrs)
    roles = dict(node.params)
    if node.op == "conv" and attrs["groups"] > 1:
        attrs["groups"] = len(kept) // (node.shape[0] // attrs["groups"])
    elif node.op == "gather":
        position = {int(old): new for new, old in enumerate(left[node.inputs[0]])}
        attrs["index"] = tuple(position[node.attrs["index"][i]] for i in kept.tolist())
    elif node.op == "group_norm":
        attrs["groups"] = len(kept) // (node.shape[0] // attrs["groups"])
    elif node.op in ("lrn", "channel_conv") and len(kept) < node.shape[0]:
        # Windows lie over the original channels; see operators._lrn.
        roles["positions"] = f"{node.name}.positions"
        old = graph.params.get(roles["positions"])
        where = torch.from_numpy(kept).to(next(iter(graph.params.values())).device)
        params[roles["positions"]] = where if old is None else old[where]
    return replace(node, shape=shape, attrs=attrs, params=roles)


def _order_outputs(graph: Graph, channels: Channels, plan: Plan, gone: NDArray[np.bool_]) -> Graph:
    """Bring the scores into the mission's order."""
    if plan.outputs is None:
        return graph
    left = np.flatnonzero(~gone[channels.outputs]).tolist()
    if left == list(plan.outputs):
        return graph
    index = tuple(left.index(o) for o in plan.outputs)
    last = graph[graph.output]
    others = {p for n in graph.nodes if n is not last for p in n.params.values()}
    if last.op == "linear" and others.isdisjoint(
        last.params.values()
    ):  # reorder the rows, so that no operator is added
        rows = torch.tensor(index)
        params = dict(graph.params)
        for name in last.params.values():
            params[name] = params[name][rows.to(params[name].device)].contiguous()
        nodes = tuple(
            replace(n, shape=(len(index),)) if n.name == last.name else n for n in graph.nodes
        )
        return Graph(nodes, params, last.name)
    name = f"{last.name}:mission"
    order = Node(name, "gather", (last.name,), (len(index),), {"index": index}, {})
    return Graph((*graph.nodes, order), graph.params, name)
