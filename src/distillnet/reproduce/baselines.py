"""What the paper sets distillation against: a replaced head, and a small network of one's own.

Section 1 of the paper names two naive ways to a network for a few classes. To replace the last
layer and fine-tune it keeps accuracy and saves no computation; to train a small network on the
mission's images alone saves computation and costs accuracy. Both are trained here with labels, on
the images that distillation has, and judged on the same others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.evaluate import Scores, closed_set, evaluation, graph_scores
from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.operators import Node
from distillnet.images import ImageSet, load_all
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distillation import Distillation
from distillnet.job.options import Options
from distillnet.job.partition import Images
from distillnet.models import Model
from distillnet.models.train import Recipe, train_on_tensors
from distillnet.reproduce.heads import scoring_layer

__all__ = [
    "HEAD_EPOCHS",
    "SMALL_RECIPE",
    "Baseline",
    "distilled_row",
    "original_row",
    "replaced_head",
    "small_network",
    "small_network_alone",
    "training_images",
]

HEAD_EPOCHS = 30
_HEAD_LR = 1e-3
_BATCH = 32
# Side 72 before the random crop; one-cycle SGD as for the paper's other small networks.
SMALL_RECIPE = Recipe(
    side=64, epochs=30, batch_size=_BATCH, peak_lr=0.05, weight_decay=5e-4, flip=True, contrast=0.2
)
_MARGIN = 8

OnEpoch = Callable[[int, int], None]


def _silent(done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Baseline:
    """One way to a network for a mission, judged on the val images.

    Attributes:
        accuracy: top-1 among the mission's classes, in 0..1.
        macs: of an image.
        seconds: from the images on disk to the network, without the final evaluation.
        epochs: passes over the images with labels; None where there was no such training.
    """

    name: str
    accuracy: float
    macs: int
    params: int
    seconds: float
    epochs: int | None


def small_network(classes: int, colours: int = 3) -> nn.Sequential:
    """A plain network of four convolutions with batch norm: 98 thousand parameters.

    >>> sum(p.numel() for p in small_network(5).parameters())
    98325
    """
    layers: list[nn.Module] = []
    channels = colours
    for width in (16, 32, 64, 128):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


def training_images(images: Images) -> ImageSet:
    """All images that are not held out for the final figures."""
    refs = dict.fromkeys((*images.statistics.refs, *images.search.refs))
    return replace(images.statistics, refs=tuple(refs))


def replaced_head(
    model: Model,
    mission: Mission,
    images: Images,
    options: Options,
    *,
    epochs: int = HEAD_EPOCHS,
    on_epoch: OnEpoch = _silent,
) -> Baseline:
    """The original with a new last layer for the mission, trained; all other layers stay.

    What the other layers say of each image is computed once, so an epoch costs next to nothing: the
    quickest that this baseline can be.

    Raises InputError where several layers make the scores.
    """
    start = time.perf_counter()
    whole = capture_model(model)
    graph = compact(whole, analyse(whole), Plan(outputs=mission.indices))
    head = scoring_layer(graph)
    values, labels = [], []
    with torch.inference_mode():
        for batch in options.batches(training_images(images), model.preprocessing):
            known = {graph.input.name: fast_layout(batch.x_nchw)}
            values.append(run(graph, known, [head.inputs[0]])[head.inputs[0]])
            labels.append(_positions(batch.labels_n, mission))
    trained = _train_head(
        graph, head, torch.cat(values).clone(), torch.cat(labels), epochs, options.seed, on_epoch
    )
    seconds = time.perf_counter() - start
    scores = graph_scores(trained, options.batches(images.val, model.preprocessing))
    closed = Scores(scores.scores_nk, _positions(scores.labels_n, mission))
    judged = evaluation(closed, mission)
    total = cost(trained, analyse(trained))
    return Baseline(
        "head replaced, fine-tuned", judged.accuracy, total.macs, total.params, seconds, epochs
    )


def _train_head(
    graph: Graph,
    head: Node,
    values: Tensor,
    labels_n: Tensor,
    epochs: int,
    seed: int,
    on_epoch: OnEpoch,
) -> Graph:
    """The graph with the head's weights drawn anew and trained, from what the head reads."""
    generator = torch.Generator().manual_seed(seed)
    params = dict(graph.params)
    weight = torch.empty_like(params[head.params["weight"]])
    params[head.params["weight"]] = weight.normal_(0.0, 0.01, generator=generator)
    if "bias" in head.params:
        params[head.params["bias"]] = torch.zeros_like(params[head.params["bias"]])
    trained = [params[name].requires_grad_(True) for name in head.params.values()]
    optimiser = torch.optim.Adam(trained, lr=_HEAD_LR)
    learning = replace(graph, params=params)
    for epoch in range(epochs):
        for picked in torch.randperm(len(labels_n), generator=generator).split(_BATCH):
            with torch.enable_grad():
                known = {head.inputs[0]: values[picked]}
                loss = F.cross_entropy(run(learning, known)[graph.output], labels_n[picked])
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
        on_epoch(epoch + 1, epochs)
    return replace(graph, params={name: tensor.detach() for name, tensor in params.items()})


def small_network_alone(
    model: Model,
    mission: Mission,
    images: Images,
    options: Options,
    *,
    recipe: Recipe = SMALL_RECIPE,
    on_epoch: OnEpoch = _silent,
) -> Baseline:
    """A small network that has never seen an image but those of the mission's classes."""
    start = time.perf_counter()
    side = recipe.side + _MARGIN
    # The values that the original takes, but in a small picture.
    canvas = replace(model.preprocessing, resize=None, input_size=(side, side))
    colours = len(canvas.mean)
    if colours == 1:  # digits and letters, which mirrored are others
        recipe = replace(recipe, flip=False)
    result = train_on_tensors(
        lambda: small_network(len(mission.indices), colours),
        _loaded(training_images(images), canvas, mission),
        _loaded(images.val, canvas, mission),
        recipe,
        seed=options.seed,
        on_epoch=lambda epoch: on_epoch(epoch.number, epoch.of),
    )
    seconds = time.perf_counter() - start
    empty = small_network(len(mission.indices), colours)
    graph = capture(empty, (recipe.side, recipe.side), channels=colours)
    total = cost(graph, analyse(graph))
    return Baseline(
        "small network, these classes alone",
        result.test_accuracy, total.macs, total.params, seconds, recipe.epochs,
    )  # fmt: skip


def _loaded(images: ImageSet, how: Preprocessing, mission: Mission) -> tuple[Tensor, Tensor]:
    loaded = load_all(images, how)
    # One scale for all values, which a network of 0 to 255 needs to begin with.
    x_nchw = loaded.x_nchw / loaded.x_nchw.std()
    return x_nchw, _positions(loaded.labels_n, mission)


def _positions(labels_n: Tensor, mission: Mission) -> Tensor:
    """The network's class indices as places in the mission."""
    place = {index: i for i, index in enumerate(mission.indices)}
    return torch.tensor([place[int(label)] for label in labels_n])


def original_row(model: Model, mission: Mission, images: Images, options: Options) -> Baseline:
    """The original as it is, its scores among the mission's classes: nothing to be done."""
    graph = capture_model(model)
    scores = graph_scores(graph, options.batches(images.val, model.preprocessing))
    total = cost(graph, analyse(graph))
    accuracy = evaluation(closed_set(scores, mission), mission).accuracy
    return Baseline("original", accuracy, total.macs, total.params, seconds=0.0, epochs=None)


def distilled_row(done: Distillation) -> Baseline:
    """What distillation found, with the seconds of all that it does but the final evaluation."""
    seconds = sum(done.seconds[part] for part in ("collect", "search", "tune"))
    return Baseline(
        "distilled, --tune" if done.options.tune else "distilled",
        done.distilled.accuracy,
        done.cost_after.macs,
        done.cost_after.params,
        seconds,
        None,
    )
