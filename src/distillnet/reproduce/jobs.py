"""Which networks a table cuts down, and to which classes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from distillnet.reproduce.paper import CIFAR_REMOVED, MNIST_REMOVED, SUBSETS, TIMES

__all__ = ["Asked", "Job", "jobs_of"]

_TEN = 10


@dataclass(frozen=True)
class Asked:
    """What of a table to measure, and how.

    Attributes:
        networks: of table 3, "mnist" and "cifar".
        removed: how many of ten classes (tables 3 and 4).
        sizes: how many classes (table 2).
        repeat: random sets of classes for each row of table 2.
    """

    table: str
    method: str = "best"
    max_loss_pp: float = 1.0
    networks: tuple[str, ...] = ("mnist", "cifar")
    removed: tuple[int, ...] = tuple(range(1, 9))
    sizes: tuple[int, ...] = tuple(SUBSETS)
    repeat: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One distillation.

    Attributes:
        network: "googlenet", "mnist" or "cifar".
        group: jobs of one row of the table have the same.
        paper: what the paper's row says of the figure that the table compares.
        timed: whether the table compares times.
    """

    table: str
    network: str
    group: int
    classes: tuple[str, ...]
    method: str
    max_loss_pp: float
    paper: float
    timed: bool = False


def jobs_of(asked: Asked, classes: Sequence[str]) -> tuple[Job, ...]:
    """The jobs of a table.

    Args:
        classes: that images are there of, for table 2; sets of more than these are left out.

    >>> [job.classes for job in jobs_of(Asked("table4", removed=(8,)), ())]
    [('8', '9')]
    """
    same = (asked.method, asked.max_loss_pp)
    if asked.table == "table2":
        return tuple(
            Job("table2", "googlenet", size, drawn, *same, SUBSETS[size][0])
            for size in asked.sizes
            if size <= len(classes)
            for drawn in _draws(classes, size, asked.repeat, asked.seed)
        )
    timed = asked.table == "table4"
    columns = {"mnist": MNIST_REMOVED, "cifar": CIFAR_REMOVED}
    return tuple(
        Job(asked.table, network, k, _left(k), *same, TIMES[k - 1] if timed else rows[k - 1], timed)
        for network, rows in columns.items()
        if (network == "mnist" if timed else network in asked.networks)
        for k in sorted(set(asked.removed))
    )


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
