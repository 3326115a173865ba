"""Which networks a table cuts down, and to which classes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distillnet.reproduce.paper import (
    CIFAR_REMOVED,
    EMERGENCY,
    IDEAL_TIMES,
    MNIST_REMOVED,
    SUBSETS,
    TIMES,
)

__all__ = ["OF_IMAGENET", "Asked", "Job", "jobs_of"]

_TEN = 10
# Tables of networks for ImageNet's classes, whose images the user has.
OF_IMAGENET = ("table1", "table2", "readings")


@dataclass(frozen=True)
class Asked:
    """What of a table to measure, and how.

    Attributes:
        networks: of table 3, "mnist" and "cifar"; of those of ImageNet's classes, "googlenet" and
            "squeezenet". None: both of table 3, and GoogLeNet, as the paper has it.
        removed: how many of ten classes (tables 3 and 4).
        sizes: how many classes (tables 1 and 2, readings).
        repeat: sets of classes for each row: related ones (table 1), or random ones (table 2).
        seed: of the sets, and of who sees which image.
        classes: the set of table 1, if it is given.
        readings: of the paper's search (``search.READINGS``); more than one for readings only.
        param_weight: what removing parameters counts beside removing MACs (best).
        partial: "neurons" or "blocks" (paper).
        images: what the folder of images is called (tables 1 and 2, readings).
        per_class: images of each class at most for statistics and search; None: all that are there.
    """

    table: str
    method: str = "best"
    max_loss_pp: float = 1.0
    networks: tuple[str, ...] | None = None
    removed: tuple[int, ...] = tuple(range(1, 9))
    sizes: tuple[int, ...] = tuple(SUBSETS)
    repeat: int = 1
    seed: int = 0
    classes: tuple[str, ...] = ()
    readings: tuple[str, ...] = ("price",)
    param_weight: float = 0.1
    partial: str = "neurons"
    images: str = "imagenette"
    per_class: int | None = None


@dataclass(frozen=True)
class Job:
    """One distillation.

    Attributes:
        network: "googlenet", "squeezenet", "mnist" or "cifar".
        group: classes of a set, or how many of ten are removed.
        paper: what the paper's row says of the figure that the table compares.
        timed: whether the table compares times.
        ideal: what the paper calls ideal, where it does.
        per_class, seed: see ``Asked``.
    """

    table: str
    network: str
    group: int
    classes: tuple[str, ...]
    method: str
    max_loss_pp: float
    paper: float
    timed: bool = False
    ideal: float | None = None
    reading: str = "price"
    param_weight: float = 0.1
    partial: str = "neurons"
    images: str = ""
    per_class: int | None = None
    seed: int = 0


def jobs_of(
    asked: Asked, classes: Sequence[str], related: Sequence[tuple[str, ...]] = ()
) -> tuple[Job, ...]:
    """The jobs of a table.

    Args:
        classes: that images are there of; sets of more than these are left out.
        related: sets of classes that have much in common, for table 1.

    >>> [job.classes for job in jobs_of(Asked("table4", removed=(8,)), ())]
    [('8', '9')]
    """
    if asked.table in OF_IMAGENET:
        return tuple(_of_imagenet(asked, classes, related))
    timed = asked.table == "table4"
    columns = {"mnist": MNIST_REMOVED, "cifar": CIFAR_REMOVED}
    return tuple(
        Job(
            asked.table, network, k, _left(k), asked.method, asked.max_loss_pp,
            TIMES[k - 1] if timed else rows[k - 1], timed,
            IDEAL_TIMES[k - 1] if timed else 100 * k / _TEN,
            **_how(asked, asked.readings[0]),
        )
        for network, rows in columns.items()
        if (network == "mnist" if timed else network in (asked.networks or columns))
        for k in sorted(set(asked.removed))
    )  # fmt: skip


def _of_imagenet(
    asked: Asked, classes: Sequence[str], related: Sequence[tuple[str, ...]]
) -> list[Job]:
    if asked.table == "table1":
        sets = [(drawn, EMERGENCY) for drawn in ([asked.classes] if asked.classes else related)]
    else:
        sets = [
            (drawn, SUBSETS[size])
            for size in asked.sizes
            if size <= len(classes)
            for drawn in _draws(classes, size, asked.repeat, asked.seed)
        ]
    return [
        Job(
            asked.table, network, len(drawn), drawn, asked.method, asked.max_loss_pp,
            row.speedup, images=asked.images, **_how(asked, reading),
        )
        for network in asked.networks or ("googlenet",)
        for reading in asked.readings
        for drawn, row in sets
    ]  # fmt: skip


def _how(asked: Asked, reading: str) -> dict[str, Any]:
    """What a job takes over as it is; a row is the same whatever is said to the other method."""
    own = (
        {"param_weight": asked.param_weight}
        if asked.method == "best"
        else {"reading": reading, "partial": asked.partial}
    )
    return {"per_class": asked.per_class, "seed": asked.seed, **own}


def _left(k: int) -> tuple[str, ...]:
    """The classes that are left of ten when the first k are removed, by index."""
    return tuple(map(str, range(k, _TEN)))


def _draws(classes: Sequence[str], size: int, repeat: int, seed: int) -> list[tuple[str, ...]]:
    """Random sets of classes, each once; all of them where there is only one."""
    found: dict[tuple[str, ...], None] = {}
    draw = random.Random(f"{seed} {size}")
    for _ in range(100 * repeat):
        if len(found) < repeat:
            found[tuple(sorted(draw.sample(list(classes), size)))] = None
    return list(found)
