"""How good a network is on a mission, and how sure one can be of a difference.

Closed set: top-1 among the mission's classes. Open set: top-1 among all that the network knows.
Both on images of the mission's classes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.errors import ImageError, InputError
from distillnet.graph import Graph, fast_layout, run
from distillnet.images import Batch

__all__ = [
    "Evaluation",
    "Scores",
    "closed_set",
    "evaluation",
    "graph_scores",
    "loss_interval_pp",
    "loss_pp",
    "worst_class_loss_pp",
]


@dataclass(frozen=True)
class Scores:
    """A network's scores (N, classes) and the images' labels (N,), the network's class indices."""

    scores_nk: Tensor
    labels_n: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Shares in 0..1; ``per_class`` by class name, closed set; ``correct`` (N,) for pairing.

    ``counts`` has the number of images by class name.
    """

    accuracy: float
    accuracy_open: float | None
    per_class: Mapping[str, float]
    correct: tuple[bool, ...] = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.correct)


def graph_scores(graph: Graph, batches: Iterable[Batch]) -> Scores:
    """Run a graph over images; InputError when a score is NaN or infinite."""
    device = next(iter(graph.params.values())).device
    scores, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            x = fast_layout(batch.x_nchw.to(device))
            y = run(graph, {graph.input.name: x})[graph.output].cpu()
            if not bool(torch.isfinite(y).all()):
                bad = next(
                    str(ref)
                    for ref, row in zip(batch.refs, y, strict=True)
                    if not bool(torch.isfinite(row).all())
                )
                raise InputError(
                    f"the network's scores for {bad} are NaN or infinite; expected numbers. Check "
                    "the weights and the preprocessing."
                )
            scores.append(y)
            labels.append(batch.labels_n)
    return Scores(torch.cat(scores), torch.cat(labels))


def closed_set(scores: Scores, mission: Mission) -> Scores:
    """Scores (N, mission) of the mission's classes alone, labels as positions in the mission."""
    position = {index: i for i, index in enumerate(mission.indices)}
    labels = torch.tensor([position[int(label)] for label in scores.labels_n])
    return Scores(scores.scores_nk[:, list(mission.indices)], labels)


def evaluation(closed: Scores, mission: Mission, open_scores: Scores | None = None) -> Evaluation:
    """Accuracies from closed-set scores (labels as positions) and, if given, open-set scores.

    ImageError when a class has no image.

    >>> mission = Mission((3, 7), ("cat", "dog"))
    >>> closed = Scores(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]))
    >>> evaluation(closed, mission).per_class
    {'cat': 1.0, 'dog': 0.0}
    """
    for i, name in enumerate(mission.names):
        if not bool((closed.labels_n == i).any()):
            raise ImageError(
                f"no image of class {mission.indices[i]} ({name}) to evaluate on could be read; "
                "expected at least one, replace the damaged files or add images"
            )
    right = closed.scores_nk.argmax(1) == closed.labels_n
    per_class = {
        name: right[closed.labels_n == i].double().mean().item()
        for i, name in enumerate(mission.names)
    }
    accuracy_open = None
    if open_scores is not None:
        hits = open_scores.scores_nk.argmax(1) == open_scores.labels_n
        accuracy_open = hits.double().mean().item()
    counts = {name: int((closed.labels_n == i).sum()) for i, name in enumerate(mission.names)}
    accuracy = right.double().mean().item()
    return Evaluation(accuracy, accuracy_open, per_class, tuple(right.tolist()), counts)


def loss_pp(before: Evaluation, after: Evaluation) -> float:
    """Closed-set accuracy lost, in percentage points; negative is a gain."""
    return 100 * (before.accuracy - after.accuracy)


def worst_class_loss_pp(before: Evaluation, after: Evaluation) -> float:
    """The largest loss of any class, in percentage points."""
    return max(100 * (before.per_class[c] - after.per_class[c]) for c in before.per_class)


def loss_interval_pp(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """The 95 % confidence interval of the loss in percentage points, both on the same images.

    Adjusted Wald interval for matched pairs: half a pair is added to each of the four outcomes, so
    that the interval has a width even when no image changed sides (Agresti and Min, Statistics in
    Medicine 24, 2005).

    >>> same = Evaluation(1.0, None, {}, (True,) * 98)
    >>> low, high = loss_interval_pp(same, same)
    >>> print(f"{low:.2f} {high:.2f}")
    -1.96 1.96
    """
    pairs = list(zip(before.correct, after.correct, strict=True))
    lost = sum(b and not a for b, a in pairs) + 0.5
    won = sum(a and not b for b, a in pairs) + 0.5
    n = len(pairs) + 2
    difference = (lost - won) / n
    deviation = math.sqrt(lost + won - (lost - won) ** 2 / n) / n
    low, high = difference - 1.959964 * deviation, difference + 1.959964 * deviation
    return 100 * low, 100 * high
