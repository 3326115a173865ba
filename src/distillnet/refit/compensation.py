"""Refitting what is left of a network so that it does the work of what is gone; no training.

Layer by layer, in execution order, weights and bias are fitted to give what the original network
gives (Teacher) from what the cut network feeds the layer:

    min over W, b of  sum over sampled rows |W x + b - z|^2  +  ridge |W - W0|^2

x: the patch in the cut network, after all earlier layers were refitted; z: the original's
pre-activation there; W0: the original weights of the channels that are left. It is solved in
closed form (``regression``), for layers that the plan splits with a weight of low rank.

Each filter of a depthwise convolution is fitted by itself (``depthwise``): it has lost no input,
but its input is another than before, above all where images are smaller.

*Where it steps aside.* Grouped convolutions and layers that share a parameter keep their weights:
what is cut of them was fed by nothing else. Batch norm, gates, pools and adds are computed as they
are; the layers behind them are fitted to what comes out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, consumers, fast_layout, images_at_once, run
from distillnet.graph.channels import Channels
from distillnet.graph.operators import Node, clamp_of
from distillnet.refit.depthwise import fit_each
from distillnet.refit.head import Head, Labels, Rows, fit_head, head_of
from distillnet.refit.regression import Thin, fit_affine, fit_thin
from distillnet.refit.samples import patches_at, rows_per_image
from distillnet.refit.teacher import Teacher, refittable, taught

__all__ = ["Rolling", "compensate", "flat_parts", "put_back", "refit", "with_biases"]

_CHUNK = 32  # images computed at once on a CPU


def compensate(
    graph: Graph,
    channels: Channels,
    plan: Plan,
    teacher: Teacher,
    x_nchw: Tensor,
    *,
    needs: Mapping[str, Tensor] | None = None,
    max_bytes: int = 2 * 10**9,
) -> Graph:
    """The graph with the weights that make up for ``plan``'s cuts, in the original shapes.

    ``mask`` and ``compact`` carry the same plan out on it. Weights of removed channels stay what
    they were; what a kept filter had for a removed channel is zero.

    Args:
        graph: the network at the student's input size, with the original weights.
        teacher: what the original says on the same images.
        x_nchw: the images as the student sees them.
        needs: by layer (M, M), what the mission feels of its outputs (``search.evidence``); for
            layers that the plan splits. None feels all outputs alike.
        max_bytes: of values kept between layers; where all images would take more, the layer is
            fitted on fewer.
    """
    return refit(
        graph, channels, plan, teacher, x_nchw, needs=needs, max_bytes=max_bytes, answer=False
    )[0]


def refit(
    graph: Graph,
    channels: Channels,
    plan: Plan,
    teacher: Teacher,
    x_nchw: Tensor,
    *,
    image_n: Tensor | None = None,
    needs: Mapping[str, Tensor] | None = None,
    max_bytes: int = 2 * 10**9,
    answer: bool = True,
    labels: Labels | None = None,
) -> tuple[Graph, Tensor]:
    """As ``compensate``, with what the new network says of the images that it was fitted on.

    Their values have come as far as the last layer by then, so the scores (N, K), all of the
    network's, cost next to nothing; they are empty without ``answer``. With ``labels`` the last
    layer is fitted to those afterwards, and each image's scores of the mission's classes are those
    of a layer that was fitted without it; see ``head``.

    Args:
        image_n: (N,) which image each of ``x_nchw`` is a view of: what is chosen by images that
            were held out is chosen by all views of those; None: each shows another.
    """
    splits = plan.splits
    plan = Plan(plan.keep)  # all scores, so that the open set can be measured
    gone = removed_classes(channels, plan)
    left = {name: torch.from_numpy(np.flatnonzero(~gone[ids])) for name, ids in channels.of.items()}
    layers = taught(graph)
    small = with_biases(compact(graph, channels, plan), [layer.name for layer in layers])
    params = dict(small.params)
    students = Rolling(small, params, x_nchw, max_bytes)
    image_n = torch.arange(len(x_nchw)) if image_n is None else image_n
    layers = tuple(small[layer.name] for layer in layers)
    readers = consumers(small)
    for layer in layers:
        x_rd, aims, image_r = _rows_for(layer, teacher, students, image_n)
        weight, bias = params[layer.params["weight"]], params[layer.params["bias"]]
        aims = aims[:, left[layer.name].to(x_rd.device)]
        flat = flat_parts(readers[layer.name])
        if layer.attrs.get("groups", 1) > 1:
            x_rcd = x_rd.unflatten(1, (len(weight), -1))
            fitted, bias = fit_each(x_rcd, aims, weight.flatten(1), bias, flat, image_r)
        elif layer.name in splits:
            kept = left[layer.name].to(x_rd.device)
            need = torch.eye(len(kept)) if needs is None else needs[layer.name][kept][:, kept]
            thin = Thin(need.to(x_rd.device), splits[layer.name], tuple(weight.shape))
            fitted, bias = fit_thin(x_rd, aims, weight.flatten(1), bias, thin, flat, image_r)
        else:
            fitted, bias = fit_affine(x_rd, aims, weight.flatten(1), bias, flat, image_r)
        params[layer.params["bias"]] = bias
        params[layer.params["weight"]] = fast_layout(fitted.reshape(weight.shape))
    head = labels and head_of(replace(small, params=params), labels.classes)
    if labels and head and head.layer.name not in splits:
        scores = _fit_head(head, labels, teacher, students, small.params)
    else:
        scores = students.outputs() if answer else x_nchw.new_zeros(0)
    return put_back(graph, small, params, layers, left, channels, gone), scores


def _fit_head(
    head: Head,
    labels: Labels,
    teacher: Teacher,
    students: "Rolling",
    original: Mapping[str, Tensor],
) -> Tensor:
    """Fit the last layer's rows of the mission to labels; the scores (N, classes) of all images.

    Those of the mission's classes come from layers that were fitted without the image, unless the
    network was trained on them. Where what the layer reads takes too much memory, it is fitted to
    the first images.
    """
    layer, params = head.layer, students.params
    names = layer.params["weight"], layer.params["bias"]
    x_rd, aims, image_r = _rows_for(layer, teacher, students, labels.image_n)
    rows = torch.tensor(head.classes, device=x_rd.device)
    before, bias = original[names[0]][rows], original[names[1]][rows]
    flat = flat_parts(consumers(students.graph)[layer.name])

    def without(held_n: Tensor) -> Rows:
        on = ~torch.isin(image_r, labels.image_n[: len(held_n)][held_n.cpu()])
        some = on.to(x_rd.device)
        weight, offset = fit_affine(
            x_rd[some], aims[some][:, rows], before.flatten(1), bias, flat, image_r[on]
        )
        return weight.reshape(before.shape), offset

    stop = students.chunks_that_fit(layer.inputs[0])
    x_n = students.outputs(layer.inputs[0], stop=stop)
    with torch.no_grad():
        scores = torch.cat([head.scores(part) for part in x_n.split(_CHUNK)])
    fitted = fit_head(head, x_n, labels.of(torch.arange(len(x_n))), without)
    if labels.known:
        scores = torch.cat([scores, students.outputs(start=stop)])
    else:
        scores[:, rows] = fitted.unseen_nk
    for name, values in zip(names, fitted.rows or (), strict=False):
        params[name] = params[name].index_copy(0, rows, values)
    return scores if labels.known else torch.cat([scores, students.outputs(start=stop)])


def _rows_for(
    layer: Node, teacher: Teacher, students: "Rolling", image_n: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer reads (R, D), what the original says there (R, M), and of which image (R,).

    Of as many images as fit into memory.
    """
    places_nr = teacher.places[layer.name]
    columns = students.params[layer.params["weight"]][0].numel()
    per_image = min(places_nr.shape[1], rows_per_image(columns, len(places_nr)))
    x_rd = students.patches(layer, places_nr[:, :per_image])
    aims_rm = _rows_of(teacher, layer.name, per_image)[: len(x_rd)]
    return x_rd, aims_rm.to(x_rd.dtype), image_n.repeat_interleave(per_image)[: len(x_rd)]


def _rows_of(teacher: Teacher, layer: str, per_image: int) -> Tensor:
    """What the original says (N R, M) at the first R of the places of each image."""
    rows = teacher.rows[layer].unflatten(0, teacher.places[layer].shape)
    return rows[:, :per_image].flatten(0, 1)


def flat_parts(readers: Sequence[Node]) -> tuple[tuple[float, float], ...]:
    """Where the activation behind a layer is constant; empty unless it is all that reads it."""
    if len(readers) != 1 or readers[0].op != "act":
        return ()
    if (bounds := clamp_of(readers[0])) is not None:
        low, high = (-math.inf, bounds[0]), (bounds[1], math.inf)
        return tuple(part for part in (low, high) if part[0] < part[1])
    match readers[0].attrs["kind"]:
        case "hardswish":
            return ((-math.inf, -3.0),)
        case "hardsigmoid":
            return ((-math.inf, -3.0), (3.0, math.inf))
        case _:
            return ()


class Rolling:
    """The cut network's values on all images, rolled forward from layer to layer.

    ``params`` may change behind the roll: only later layers read them anew. When the values at a
    layer are too many for ``max_bytes``, only the first images go on; when they fit again, the
    others are brought up from the input.
    """

    def __init__(
        self, graph: Graph, params: dict[str, Tensor], x_nchw: Tensor, max_bytes: int
    ) -> None:
        self.graph, self.params, self.max_bytes = graph, params, max_bytes
        self.chunk = images_at_once(graph, x_nchw.device, _CHUNK)
        self.chunks = x_nchw.split(self.chunk)
        self.position = {node.name: i for i, node in enumerate(graph.nodes)}
        self.readers = consumers(graph)
        self.live: list[dict[str, Tensor]] = []
        self.latest: tuple[object, Tensor] | None = None

    def patches(self, layer: Node, places_nr: Tensor) -> Tensor:
        """What ``layer`` reads at the places: rows of as many images as fit, (R, D)."""
        kernel = tuple(self.params[layer.params["weight"]].shape[2:])
        same = (layer.inputs, kernel, *map(str, layer.attrs.values()), layer.shape[1:])
        if self.latest is None or self.latest[0] != same:  # branches often read the same
            rows, start = [], 0
            for x in self._values(layer):
                part = places_nr[start : start + len(x)]
                rows.append(patches_at(layer, kernel, x, part))
                start += len(x)
            self.latest = (same, torch.cat(rows))
        return self.latest[1]

    def chunks_that_fit(self, node: str) -> int:
        """Of how many chunks a node's values take no more than half of the bytes; one at least."""
        per_chunk = 4 * self.chunk * math.prod(self.graph[node].shape)
        return min(len(self.chunks), max(1, self.max_bytes // 2 // per_chunk))

    def outputs(
        self, node: str | None = None, *, start: int = 0, stop: int | None = None
    ) -> Tensor:
        """What the network says of images (N, K), or a node; nothing of them is live afterwards.

        Args:
            start: and ``stop``: of the chunks; all images without them.
        """
        self.latest = None
        graph, rows = replace(self.graph, params=self.params), []
        wanted = node or graph.output
        with torch.no_grad():
            for i, chunk in list(enumerate(self.chunks))[start:stop]:
                known = {graph.input.name: fast_layout(chunk)}
                if i < len(self.live):
                    known, self.live[i] = self.live[i], {}
                rows.append(run(graph, known, [wanted])[wanted])
        return torch.cat(rows) if rows else self.chunks[0].new_zeros(0, *graph[wanted].shape)

    def _values(self, layer: Node) -> Iterator[Tensor]:
        """The layer's input, chunk by chunk."""
        here = self.position[layer.name]
        alive = [
            node
            for node in self.graph.nodes[:here]
            if any(self.position[reader.name] >= here for reader in self.readers[node.name])
        ]
        names = [node.name for node in alive]
        per_chunk = 4 * self.chunk * sum(math.prod(node.shape) for node in alive)
        count = min(len(self.chunks), max(1, self.max_bytes // per_chunk))
        graph = replace(self.graph, params=self.params)
        del self.live[count:]
        with torch.no_grad():
            for i in range(count):
                if i == len(self.live):
                    self.live.append({self.graph.input.name: fast_layout(self.chunks[i])})
                self.live[i] = run(graph, self.live[i], names)
                yield self.live[i][layer.inputs[0]]


def with_biases(graph: Graph, layers: Sequence[str] | None = None) -> Graph:
    """The graph with a bias, zero at first, in each of the layers that had none.

    Args:
        layers: by name; None takes all that can be refitted.
    """
    if layers is None:
        layers = [node.name for node in refittable(graph)]
    params, nodes = dict(graph.params), []
    for node in graph.nodes:
        if node.name in layers and "bias" not in node.params:
            weight = params[node.params["weight"]]
            name = _bias_name(node)
            params[name] = weight.new_zeros(len(weight))
            node = replace(node, params={**node.params, "bias": name})
        nodes.append(node)
    return Graph(tuple(nodes), params, graph.output)


def _bias_name(layer: Node) -> str:
    return f"{layer.name}:bias"


def put_back(
    graph: Graph,
    small: Graph,
    params: dict[str, Tensor],
    layers: Sequence[Node],
    left: dict[str, Tensor],
    channels: Channels,
    gone: NDArray[np.bool_],
) -> Graph:
    """The fitted weights in tensors of the original shapes."""
    whole = with_biases(graph, [layer.name for layer in layers])
    result = dict(whole.params)
    for layer in layers:
        weight, bias = (whole[layer.name].params[role] for role in ("weight", "bias"))
        device = result[weight].device
        rows, columns = left[layer.name].to(device), left[graph[layer.name].inputs[0]].to(device)
        full = result[weight].clone()
        if layer.attrs.get("groups", 1) > 1:
            full[rows] = params[layer.params["weight"]]
        else:
            kept = torch.zeros_like(full[rows])
            kept[:, columns] = params[layer.params["weight"]]
            full[rows] = kept
        result[weight] = full
        result[bias] = result[bias].clone()
        result[bias][rows] = params[layer.params["bias"]]
    return replace(whole, params=result)
