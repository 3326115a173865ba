"""Sets of classes that have much in common, as the network itself sees it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distillnet.graph.capture import capture_model
from distillnet.models import Model
from distillnet.reproduce.heads import scoring_layer

__all__ = ["class_directions", "related_sets"]


def class_directions(model: Model) -> Tensor:
    """What of its features a network looks at for each class, less what it does for all: (A, F)."""
    graph = capture_model(model)
    weight = graph.params[scoring_layer(graph).params["weight"]].detach().float().flatten(1)
    return weight - weight.mean(0)


def related_sets(
    directions: Tensor, classes: Mapping[str, int], size: int, count: int
) -> tuple[tuple[str, ...], ...]:
    """The sets of a class and those nearest to it, the closest set first.

    Args:
        directions: (A, F), one for each class of the network; near is a small angle.
        classes: the network's index by name, to choose from.

    >>> eye = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    >>> related_sets(eye, {"cat": 0, "bus": 1, "dog": 2, "van": 3}, size=2, count=2)
    (('cat', 'dog'), ('bus', 'van'))
    """
    names = list(classes)
    unit = torch.nn.functional.normalize(directions[list(classes.values())], dim=1)
    alike = unit @ unit.T
    sets: dict[tuple[str, ...], float] = {}
    for row in alike:
        nearest = row.argsort(descending=True, stable=True)[:size]
        together = alike[nearest][:, nearest]
        apart = len(nearest) * (len(nearest) - 1)
        sets[tuple(sorted(names[int(i)] for i in nearest))] = float(
            (together.sum() - together.trace()) / max(1, apart)
        )
    return tuple(sorted(sets, key=lambda drawn: -sets[drawn])[:count])
