"""Who of the images fits the weights of candidates, and who judges them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.refit.samples import evenly
from distillnet.search.views import PICTURES

__all__ = ["FOLDS", "Roles", "assign_roles", "folds_crossed", "mixed", "most_fitted"]

FOLDS = 5  # of a cross-validation
_CROSSED_IMAGES = 320  # that are enough to tell by how much the others are flattered


@dataclass(frozen=True)
class Roles:
    """Positions in ``Sized.x_nchw`` of the images that fit weights, and of those that judge.

    Neighbours among those that fit are of different classes: layers whose values take too much
    memory are fitted on the first of them.
    """

    fit: Tensor
    judge: Tensor


def assign_roles(n: int, n_statistics: int, *, alike: bool) -> Roles:
    """Who fits and who judges of ``n`` images, the statistics images first.

    >>> roles = assign_roles(5, 2, alike=True)
    >>> sorted(roles.fit.tolist()), roles.judge.tolist()
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    >>> roles = assign_roles(5, 2, alike=False)
    >>> sorted(roles.fit.tolist()), roles.judge.tolist()
    ([0, 1], [2, 3, 4])
    """
    everyone = torch.arange(n)
    if not alike:
        return Roles(mixed(everyone[:n_statistics]), everyone[n_statistics:])
    return Roles(mixed(evenly(everyone, most_fitted(n_statistics))), everyone)


def most_fitted(n_statistics: int) -> int:
    """How many pictures fit at most, of all: time grows with them where many are searched on.

    >>> most_fitted(80), most_fitted(700)
    (1000, 1400)
    """
    return max(2 * n_statistics, PICTURES)


def mixed(positions: Tensor, stride: int = 31) -> Tensor:
    """The same positions, neighbours far apart: classes follow each other."""
    return torch.cat([positions[first::stride] for first in range(stride)])


def folds_crossed(n_fitted: int) -> int:
    """How many folds of a cross-validation hold images enough, of those that weights are fitted on.

    >>> folds_crossed(200), folds_crossed(400), folds_crossed(1000)
    (5, 4, 2)
    """
    return min(FOLDS, math.ceil(FOLDS * _CROSSED_IMAGES / n_fitted))
