"""How coarse the weights of a network may become: a search over one number, judged on images.

``best`` rounds with error feedback and refits (``refit.sharing``); ``paper`` is Deep Compression
without its training (Han, Mao and Dally, arXiv:1510.00149): weights that are small against their
layer's deviation go, k-means shares the values of the others.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.graph import Graph, fast_layout, run
from distillnet.models.packed import Shared
from distillnet.refit.sharing import feel, prune_to, share
from distillnet.refit.teacher import refittable, teach

__all__ = [
    "METHODS",
    "Attempt",
    "Pictures",
    "Rounded",
    "cluster",
    "expected_loss_pp",
    "round_network",
    "scores_of",
]

METHODS = ("best", "paper")
_BATCH = 32
_STEPS = 7  # of the search
_CLOSE = 2**0.25  # between two settings that are as good as one
_CLUSTERS, _LLOYD = 64, 20
_NO_CODEBOOK = np.zeros(0, np.float32)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pictures:
    """Images to fit to, and others to judge on, as the network takes them.

    Attributes:
        labels: of those to judge on, as positions among the network's scores.
    """

    fit: Tensor
    judge: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Rounded:
    """What was found.

    Attributes:
        graph: with the weights that the file will hold.
        pruned: with those that are not gone, before they were rounded.
        shared: by name of the weight.
        setting: the coarseness, or of ``paper`` the threshold in deviations.
        expected_loss_pp: on the images that judged.
    """

    graph: Graph
    pruned: Graph
    shared: Mapping[str, Shared]
    setting: float
    expected_loss_pp: float


def scores_of(graph: Graph, x_nchw: Tensor) -> Tensor:
    """What a network says of images (N, K)."""
    with torch.inference_mode():
        parts = [
            run(graph, {graph.input.name: fast_layout(part)})[graph.output]
            for part in x_nchw.split(_BATCH)
        ]
    return torch.cat(parts)


def expected_loss_pp(before: Tensor, after: Tensor, labels: Tensor) -> float:
    """Accuracy that is lost where scores change from ``before`` (N, K) to ``after``, in points.

    Right is, half and half, the label and what the original thinks likely, which tells more where
    images are few.

    >>> before, after = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0]])
    >>> f"{expected_loss_pp(before, after, torch.tensor([0])):.1f}"
    '100.0'
    """
    likely = before.softmax(1) / 2
    rows = torch.arange(len(labels))
    likely[rows, labels] += 0.5
    lost = likely[rows, before.argmax(1)] - likely[rows, after.argmax(1)]
    return 100 * float(lost.mean())


def round_network(
    graph: Graph,
    pictures: Pictures,
    *,
    method: str = "best",
    max_loss_pp: float = 1.0,
    setting: float | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Rounded:
    """The coarsest weights of a network under which no more than ``max_loss_pp`` is lost.

    Args:
        graph: with a bias in each layer (``with_biases``).
        setting: what to use instead of searching, see ``Rounded``.
    """
    attempt = (_best if method == "best" else _paper)(graph, pictures)
    before = scores_of(graph, pictures.judge)

    def judged(value: float) -> tuple[float, Attempt]:
        made = attempt(value)
        after = scores_of(made.graph, pictures.judge)
        return expected_loss_pp(before, after, pictures.labels), made

    if setting is not None:
        loss, made = judged(setting)
        found = setting, loss, made
    else:
        start = attempt.start
        found = _coarsest(judged, start, max_loss_pp, on_progress)
    value, loss, made = found
    return Rounded(made.graph, attempt.prune(made), made.shared, value, loss)


@dataclass(frozen=True)
class Attempt:
    """A network with rounded weights."""

    graph: Graph
    shared: Mapping[str, Shared]


def _coarsest(
    judged: Callable[[float], tuple[float, Attempt]],
    start: float,
    max_loss_pp: float,
    on_progress: Progress,
) -> tuple[float, float, Attempt]:
    """Double or halve until the budget lies between two settings, then between closer ones."""
    good: tuple[float, float, Attempt] | None = None
    bad: float | None = None
    value = start
    for step in range(_STEPS):
        loss, made = judged(value)
        on_progress("pack", step + 1, _STEPS)
        if loss <= max_loss_pp:
            good = value, loss, made
        else:
            bad = value
        if good is None:
            value /= 2
        elif bad is None:
            value *= 2
        elif bad / good[0] < _CLOSE * 1.001:
            break
        else:
            value = math.sqrt(good[0] * bad)
    if good is None:  # finer than any of them: no more than rounding is lost
        loss, made = judged(value / 8)
        good = value / 8, loss, made
    on_progress("pack", _STEPS, _STEPS)
    return good


class _best:  # noqa: N801 - a function with what it knows
    def __init__(self, graph: Graph, pictures: Pictures) -> None:
        self.graph, self.x = graph, pictures.fit
        self.teacher = teach(graph, graph, self.x, max_bytes=10**9)
        self.felt = feel(graph, self.x)
        weights = sum(graph.params[n.params["weight"]].numel() for n in refittable(graph))
        # Each weight's error is the coarseness squared over 12, and half of their sum what the
        # answer changes by in nats; a fiftieth of one is little.
        self.start = math.sqrt(24 * 0.02 / max(weights, 1))

    def __call__(self, coarseness: float) -> Attempt:
        made = share(self.graph, self.teacher, self.x, self.felt, coarseness)
        shared = {}
        for name, levels in made.levels.items():
            shape = tuple(self.graph.params[name].shape)
            whole = levels.levels.to(torch.int32).numpy()
            shared[name] = Shared(shape, whole, levels.rows, levels.columns, _NO_CODEBOOK)
        # The very numbers that the file will give.
        params = {**made.graph.params, **{n: fast_layout(s.value) for n, s in shared.items()}}
        return Attempt(replace(made.graph, params=params), shared)

    def prune(self, made: Attempt) -> Graph:
        keep = {name: torch.from_numpy(s.levels != 0) for name, s in made.shared.items()}
        return prune_to(self.graph, self.teacher, self.x, keep)


class _paper:  # noqa: N801
    start = 0.5

    def __init__(self, graph: Graph, pictures: Pictures) -> None:
        self.graph = graph

    def __call__(self, threshold: float) -> Attempt:
        params, shared = dict(self.graph.params), {}
        for node in refittable(self.graph):
            name = node.params["weight"]
            weight = params[name].contiguous()
            shared[name] = cluster(weight.numpy(), threshold)
            params[name] = fast_layout(shared[name].value)
        return Attempt(replace(self.graph, params=params), shared)

    def prune(self, made: Attempt) -> Graph:
        params = dict(self.graph.params)
        for name, s in made.shared.items():
            params[name] = params[name] * torch.from_numpy((s.levels != 0).reshape(s.shape))
        return replace(self.graph, params=params)


def cluster(weight: NDArray[np.float32], threshold: float) -> Shared:
    """A weight of at most 64 values beside 0, by k-means from evenly spread ones (Han and others).

    What is smaller than ``threshold`` deviations is 0.
    """
    flat = weight.reshape(len(weight), -1)
    keep = np.abs(flat) >= threshold * flat.std()
    values = flat[keep].astype(np.float64)
    half = _CLUSTERS // 2
    codebook = np.zeros(_CLUSTERS + 1)
    if values.size:
        centres = np.linspace(values.min(), values.max(), _CLUSTERS)
        for _ in range(_LLOYD):
            nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
            count = np.bincount(nearest, minlength=_CLUSTERS)
            total = np.bincount(nearest, values, minlength=_CLUSTERS)
            centres = np.where(count > 0, total / np.maximum(count, 1), centres)
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        codebook[:half], codebook[half + 1 :] = centres[:half], centres[half:]
    levels = np.zeros(flat.shape, np.int32)
    if values.size:
        levels[keep] = np.where(nearest < half, nearest - half, nearest - half + 1)
    no_rows, no_columns = (np.zeros(n, np.int8) for n in flat.shape)
    return Shared(weight.shape, levels, no_rows, no_columns, codebook.astype(np.float32))
