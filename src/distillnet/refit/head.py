"""Fitting a network's last layer to what images show: their folders' names.

A refit makes the last layer answer as the original does, which tells a thousand classes apart. What
tells the few of a mission apart is less, and the images show it: the mission's rows of the last
layer are fitted to the labels themselves, a multinomial logistic regression that starts from the
refitted weights W0 and is drawn to them,

    min over W, b of  mean over images of -log softmax(tail(W x + b))[label]
                      + ridge (v |W - W0|^2 + |b - b0|^2)

x: what the layer reads; v: the mean variance of its channels' means over images, so that the ridge
asks for the same whatever the scale; tail: what follows the layer, a pool or an activation. It is
the only layer that labels are shown to; nothing is trained through the network.

What such a regression says of its own images is no evidence: with a hundred of them and five
hundred channels it tells all apart. So their scores come from five regressions, each of which is
fitted without the fifth that it answers for, and so are the weights that it starts from. They also
tell whether labels are of use: where the original is right nearly everywhere, what it says of an
image tells more than the name of its folder.

Of images that the network was trained on they tell nothing: it knows their labels by heart. There
the scores are those of the refitted weights, as they were before labels were shown to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, run
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS, Node
from distillnet.refit.samples import by_image, folds_of
from distillnet.refit.teacher import refittable

__all__ = ["RIDGE", "FittedHead", "Head", "Labels", "Rows", "fit_head", "head_of"]

RIDGE = 0.03  # chosen on the yardstick's developing half (docs/results.md)
_FOLDS = 5
_ITERATIONS = 12  # of L-BFGS; five times as many change nothing on images that were not fitted

Rows = tuple[Tensor, Tensor]  # weights (K, ...) and biases (K,) of some of a layer's outputs


@dataclass(frozen=True)
class Labels:
    """What images show.

    Attributes:
        of_n: (N,) positions in ``classes``.
        classes: of the mission, positions among the network's scores.
        image_n: (N,) which image each is a view of: all views of one are left out together.
        known: whether the network was trained on the images, so that what a fit to labels wins
            cannot be told by them.
    """

    of_n: Tensor
    classes: tuple[int, ...]
    image_n: Tensor
    known: bool = False

    def of(self, images: Tensor) -> "Labels":
        """Those of some of the images, by their positions."""
        images = images.to(self.of_n.device)
        return replace(self, of_n=self.of_n[images], image_n=self.image_n[images])


@dataclass(frozen=True)
class Head:
    """A network from what its last layer reads to its scores, as a network of its own.

    Attributes:
        layer: the last one.
        whole: with all scores.
        own: with those of a mission alone, (K,) in the order of ``classes``, which is rising.
    """

    layer: Node
    whole: Graph
    own: Graph
    classes: tuple[int, ...]

    def scores(self, x_n: Tensor) -> Tensor:
        """All scores (N, classes) of what the last layer reads."""
        return run(self.whole, {self.whole.input.name: x_n})[self.whole.output]


def head_of(graph: Graph, classes: Sequence[int]) -> Head | None:
    """The head of a network, for a mission of some of its classes.

    None where something else feeds the scores, where the layer's weights serve another, too, or
    where each score comes of more than its own row of weights.
    """
    last = max(i for i, node in enumerate(graph.nodes) if node.op in LAYERS)
    layer = graph.nodes[last]
    if layer not in refittable(graph):
        return None
    source = graph[layer.inputs[0]]
    known = {source.name}
    for node in graph.nodes[last:]:
        if not known.issuperset(node.inputs):
            return None
        known.add(node.name)
    nodes = (Node(source.name, "input", (), source.shape), *graph.nodes[last:])
    params = {name: graph.params[name] for node in nodes for name in node.params.values()}
    whole = Graph(nodes, params, graph.output)
    rising = tuple(sorted(classes))
    own = compact(whole, analyse(whole), Plan(outputs=rising))
    if own[layer.name].shape[0] != len(rising):
        return None
    return Head(layer, whole, own, rising)


@dataclass(frozen=True)
class FittedHead:
    """What became of the last layer's rows ``Head.classes``.

    Attributes:
        rows: None where labels are of no use: they stay what they were.
        unseen_nk: scores of each image by rows that were fitted without it.
    """

    rows: Rows | None
    unseen_nk: Tensor


def fit_head(
    head: Head, x_n: Tensor, labels: Labels, without: Callable[[Tensor], Rows]
) -> FittedHead:
    """Fit a head to labels, unless that tells images worse that were not fitted.

    Worse by more than a standard error, that is.

    Args:
        x_n: what the layer reads of the images, (N, C, H, W) or (N, F).
        without: the rows of ``head`` as they would be without some of the images, bool (N,).
    """
    task = _task(head, x_n, labels)
    folds = _folds(task.of_n, labels.image_n.to(x_n.device))
    imitating = x_n.new_empty(len(x_n), len(head.classes))
    labelled = imitating.clone()
    for fold in range(_FOLDS):
        held = folds == fold
        if bool(held.any()):
            start = without(held)
            imitating[held] = task.scores(start, x_n[held])
            fitted = task.fit(start, ~held) if bool((~held).any()) else start
            labelled[held] = task.scores(fitted, x_n[held])
    worse_n = _surprise(labelled, task.of_n) - _surprise(imitating, task.of_n)
    _, image_n = labels.image_n.unique(return_inverse=True)
    worse_n = by_image(worse_n, image_n.to(x_n.device))
    error = float(worse_n.std(correction=0)) / len(worse_n) ** 0.5
    rows = task.fit(task.start, torch.ones_like(folds, dtype=torch.bool))
    # Not a number is no better, either: of features beyond all measure a regression finds nothing.
    if float(worse_n.mean()) <= error and all(bool(tensor.isfinite().all()) for tensor in rows):
        return FittedHead(rows, labelled)
    return FittedHead(None, imitating)


@dataclass(frozen=True)
class _Task:
    """The regression: a head of the mission's rows, what it reads, and labels (N,) among them."""

    own: Graph
    names: tuple[str, str]
    x_n: Tensor
    of_n: Tensor
    variance: float

    @property
    def start(self) -> Rows:
        weight, bias = self.names
        return self.own.params[weight], self.own.params[bias]

    def scores(self, rows: Sequence[Tensor], x_n: Tensor) -> Tensor:
        """(n, K), of what the layer reads of some images."""
        weight, bias = self.names
        own = replace(self.own, params={**self.own.params, weight: rows[0], bias: rows[1]})
        return run(own, {own.input.name: x_n})[own.output]

    def fit(self, start: Rows, on: Tensor) -> Rows:
        """Rows fitted to some of the images, bool (N,), and drawn to those they start from."""
        x_n, of_n = self.x_n[on], self.of_n[on]
        rows = [tensor.detach().clone().requires_grad_() for tensor in start]
        optimiser = torch.optim.LBFGS(
            rows, max_iter=_ITERATIONS, history_size=_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            far = [(now - before).square().sum() for now, before in zip(rows, start, strict=True)]
            drawn = RIDGE * (self.variance * far[0] + far[1])
            value = F.cross_entropy(self.scores(rows, x_n), of_n) + drawn
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)
        return rows[0].detach(), rows[1].detach()


def _task(head: Head, x_n: Tensor, labels: Labels) -> _Task:
    place = {c: k for k, c in enumerate(head.classes)}
    places = torch.tensor([place[c] for c in labels.classes], device=x_n.device)
    means = x_n.flatten(2).mean(2) if x_n.ndim == 4 else x_n
    variance = float(means.var(0, correction=0).mean())
    params = head.own[head.layer.name].params
    names = params["weight"], params["bias"]
    return _Task(head.own, names, x_n, places[labels.of_n.to(x_n.device)], variance)


def _surprise(scores_nk: Tensor, of_n: Tensor) -> Tensor:
    """The cross-entropy (N,) at the best temperature: how well scores tell, however loudly."""
    temperatures = (2 ** (step / 2) for step in range(-40, 41))
    each = [F.cross_entropy(scores_nk / t, of_n, reduction="none") for t in temperatures]
    return min(each, key=lambda surprise_n: float(surprise_n.mean()))


def _folds(of_n: Tensor, image_n: Tensor) -> Tensor:
    """Of each image which fold it belongs to, those of each class spread over all."""
    by_class = of_n * (int(image_n.max()) + 1) + image_n
    return folds_of(by_class, _FOLDS)
