"""Distillation with the other ways to make a network small, in one order and in the other.

Sections 7.2 and 9 of the paper say that distillation goes together with pruning of single weights
and with quantisation. Here a network is pruned and then distilled, or distilled and then pruned,
and quantised at last: the same share of weights goes, the same MACs stay, so that bytes and
accuracy tell which order wins.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.errors import InputError
from distillnet.evaluate import Scores, closed_set, evaluation, graph_scores
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import limit, load_all
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distill import distill
from distillnet.job.options import Options
from distillnet.job.partition import Images
from distillnet.models import Model
from distillnet.models.packed import Packed, Plain, Shared, steps_of, write_packed
from distillnet.refit.compensation import with_biases
from distillnet.refit.sharing import prune_to
from distillnet.refit.teacher import refittable, teach

__all__ = ["ROUTES", "Composed", "compose", "pruned", "quantised"]

# "prune" is torch.nn.utils.prune alone; "prune and refit" makes up for it in closed form.
ROUTES: tuple[tuple[str, ...], ...] = (
    (),
    ("prune",),
    ("prune and refit",),
    ("distill",),
    ("prune", "distill"),
    ("prune and refit", "distill"),
    ("distill", "prune"),
    ("distill", "prune and refit"),
)
_FIT = 400  # images that weights are refitted on
_LEVELS = 127  # of 8 bits, on each side of 0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Composed:
    """What a route made of a network, after it was quantised to 8 bits.

    Attributes:
        kept: share of the original's weights that are there and not 0.
        bytes: of a packed file of it.
        accuracy: among the mission's classes, on images held out; ``float_accuracy`` before it was
            quantised.
        seconds: of the steps, without the evaluation.
    """

    route: tuple[str, ...]
    macs: int
    kept: float
    bytes: int
    float_accuracy: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class _Network:
    """A network on its way: the whole one, or with the mission's scores alone."""

    graph: Graph
    how: Preprocessing
    whole: bool = True


def compose(
    model: Model,
    mission: Mission,
    images: Images,
    options: Options,
    *,
    share: float = 0.5,
    routes: tuple[tuple[str, ...], ...] = ROUTES,
    on_progress: Progress = lambda stage, done, of: None,
) -> list[Composed]:
    """Take a network along each route.

    Args:
        options: of distilling; a target of MACs makes routes comparable.
        share: of all weights that pruning takes, those of least magnitude.

    Raises:
        InputError: batch norms were folded into the network's weights, so that these cannot be
            given back to it.
    """
    graph = with_biases(capture_model(model))
    if set(graph.params) != set(model.module.state_dict()):
        raise InputError(
            f"found that {model.name} has batch norms or layers without biases, which are folded; "
            "expected a network whose own weights can be pruned, such as SqueezeNet or GoogLeNet"
        )
    total = _weights(graph)
    done: dict[tuple[str, ...], tuple[_Network, float]] = {
        (): (_Network(graph, model.preprocessing), 0.0)
    }
    rows = []
    for number, route in enumerate(routes):
        for n in range(len(route)):  # beginnings that routes share are walked once
            if route[: n + 1] not in done:
                before, seconds = done[route[:n]]
                start = time.perf_counter()
                after = _stepped(
                    route[n], before, model, mission, images, options, share, on_progress
                )
                done[route[: n + 1]] = after, seconds + time.perf_counter() - start
        network, seconds = done[route]
        start = time.perf_counter()
        small, shared = quantised(network.graph)
        seconds += time.perf_counter() - start
        rows.append(
            Composed(
                route, cost(network.graph, analyse(network.graph)).macs,
                _nonzero(network.graph) / total, _bytes(small, shared),
                _accuracy(network, mission, images, options),
                _accuracy(replace(network, graph=small), mission, images, options), seconds,
            )
        )  # fmt: skip
        on_progress("compose", number + 1, len(routes))
    return rows


def _stepped(
    step: str,
    network: _Network,
    model: Model,
    mission: Mission,
    images: Images,
    options: Options,
    share: float,
    on_progress: Progress,
) -> _Network:
    if step == "distill":
        own = copy.deepcopy(model.module)
        own.load_state_dict(network.graph.params)
        with tempfile.TemporaryDirectory(prefix="distillnet-") as folder:
            done = distill(
                replace(model, module=own), mission, images, Path(folder), options,
                on_progress=on_progress,
            )  # fmt: skip
        return _Network(with_biases(done.compact), done.preprocessing, whole=False)
    if step == "prune":
        return replace(network, graph=pruned(network.graph, share))
    few = limit(images.statistics, math.ceil(_FIT / len(mission)), 0)
    return replace(network, graph=pruned(network.graph, share, load_all(few, network.how).x_nchw))


def pruned(graph: Graph, share: float, x_nchw: Tensor | None = None) -> Graph:
    """The network without a share of its weights, those of least magnitude, by PyTorch's pruning.

    Args:
        x_nchw: images on which the weights that stay are refitted; None leaves them as they are.
    """
    names = [node.params["weight"] for node in refittable(graph)]
    holders = {name: _Holder(graph.params[name]) for name in names}
    torch_prune.global_unstructured(
        [(holder, "weight") for holder in holders.values()],
        pruning_method=torch_prune.L1Unstructured, amount=share,
    )  # fmt: skip
    if x_nchw is None:
        kept = {name: holder.weight.detach() for name, holder in holders.items()}
        return replace(graph, params={**graph.params, **kept})
    keep = {
        name: holder.weight_mask.reshape(len(holder.weight_mask), -1) != 0
        for name, holder in holders.items()
    }
    return prune_to(graph, teach(graph, graph, x_nchw, max_bytes=10**9), x_nchw, keep)


class _Holder(nn.Module):
    """A weight as PyTorch's pruning takes it."""

    weight: Tensor
    weight_mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone().contiguous())


def quantised(graph: Graph) -> tuple[Graph, Mapping[str, Shared]]:
    """Weights as whole numbers of at most 127 times a step for each filter; 0 stays 0."""
    shared = {}
    for node in refittable(graph):
        name = node.params["weight"]
        weight = graph.params[name].detach().contiguous()
        rows = weight.reshape(len(weight), -1).numpy().astype(np.float64)
        largest = np.maximum(np.abs(rows).max(1), 2.0**-60)
        half_octaves = np.ceil(2 * np.log2(largest / _LEVELS)).clip(-128, 127).astype(np.int8)
        levels = np.round(rows / steps_of(half_octaves)[:, None]).astype(np.int32)
        columns = np.zeros(rows.shape[1], np.int8)
        shared[name] = Shared(
            tuple(weight.shape), levels, half_octaves, columns, np.zeros(0, np.float32)
        )
    values = {name: s.value for name, s in shared.items()}
    return replace(graph, params={**graph.params, **values}), shared


def _bytes(graph: Graph, shared: Mapping[str, Shared]) -> int:
    tensors = {
        name: shared.get(name) or Plain(tensor.detach().contiguous())
        for name, tensor in graph.params.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network"
        write_packed(Packed("weights", tensors, {}, {}), path)
        return path.stat().st_size


def _weights(graph: Graph) -> int:
    return sum(graph.params[node.params["weight"]].numel() for node in refittable(graph))


def _nonzero(graph: Graph) -> int:
    return sum(int((graph.params[n.params["weight"]] != 0).sum()) for n in refittable(graph))


def _accuracy(network: _Network, mission: Mission, images: Images, options: Options) -> float:
    scores = graph_scores(network.graph, options.batches(images.val, network.how))
    if network.whole:
        return evaluation(closed_set(scores, mission), mission).accuracy
    place = {index: i for i, index in enumerate(mission.indices)}
    labels_n = torch.tensor([place[int(label)] for label in scores.labels_n])
    return evaluation(Scores(scores.scores_nk, labels_n), mission).accuracy
