"""What methods.py measures: networks, missions and methods; and the rows that came of it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A trained network: how tables call it, how the command does, and its file in weights/."""

    name: str
    spec: str
    weights: str


@dataclass(frozen=True)
class Method:
    """distillnet's command with these options, or Torch-Pruning with this importance.

    Attributes:
        then: the training that follows Torch-Pruning, see methods_training.
        mac_ratio: that Torch-Pruning shall reach; the largest within the loss where it is 0.
    """

    name: str
    options: tuple[str, ...] = ()
    importance: str = ""
    then: str = ""
    mac_ratio: float = 0.0
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Job:
    """One row to measure."""

    network: Network
    classes: tuple[str, ...]
    method: Method
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network.name}/{len(self.classes)}/{self.method.name}"


@dataclass(frozen=True)
class Setting:
    """What all rows of a table have in common."""

    data: Path
    max_loss: float
    images_per_class: int | None
    search_steps: int
    pruning_steps: int

    def recorded(self, method: Method) -> Row:
        """What a row of a method depends on, wherever the data lay."""
        values: Row = {"max_loss": self.max_loss, "images_per_class": self.images_per_class}
        if method.importance:
            values |= {"search_steps": self.search_steps, "pruning_steps": self.pruning_steps}
        return values


NETWORKS = (
    Network("GoogLeNet", "zoo:bvlc_googlenet", "bvlc_googlenet.safetensors"),
    Network("SqueezeNet", "torchvision:squeezenet1_0", "squeezenet1_0.safetensors"),
)
FIVE = ("tench", "English springer", "cassette player", "chain saw", "church")
TEN = (*FIVE, "French horn", "garbage truck", "gas pump", "golf ball", "parachute")
_BEST, _SEEDS = ("--method", "best"), (0, 1, 2)
METHODS = (
    Method("distillnet best", _BEST),
    Method("distillnet paper, heat", ("--method", "paper", "--score", "heat")),
    Method("channels by L1", (*_BEST, "--no-split", "--score", "l1")),
    Method("channels at random", (*_BEST, "--no-split", "--score", "random"), seeds=_SEEDS),
    Method("Torch-Pruning, Taylor", importance="taylor"),
    Method("Torch-Pruning, L2 norm", importance="l2"),
    Method("Torch-Pruning, L1 norm", importance="l1"),
)
# What the parts of best are worth.
ABLATIONS = (
    Method("best, channels alone", (*_BEST, "--no-split")),
    Method("best, channels by L1", (*_BEST, "--score", "l1")),
    Method("best, channels at random", (*_BEST, "--score", "random"), seeds=_SEEDS),
)
# All at as many MACs, without and with a short training behind; what they lose tells them apart.
_AIM = 4.0
_TO_AIM = ("--target-macs", f"{_AIM:g}")
_RIVALS = ("--no-split", "--score")
TRAINED = tuple(
    method
    for then, after in (((), ""), (("--tune",), ", tuned"))
    for method in (
        Method(f"4x: best{after}", (*_BEST, *_TO_AIM, *then)),
        Method(f"4x: channels by L1{after}", (*_BEST, *_RIVALS, "l1", *_TO_AIM, *then)),
        Method(
            f"4x: channels at random{after}",
            (*_BEST, *_RIVALS, "random", *_TO_AIM, *then),
            seeds=_SEEDS,
        ),
    )
) + tuple(
    Method(f"4x: Torch-Pruning, Taylor{after}", importance="taylor", then=then, mac_ratio=_AIM)
    for then, after in (("", ""), ("tune", ", tuned"), ("labels", ", its own training"))
)
CASES = [(METHODS, FIVE), (METHODS, TEN), (ABLATIONS, FIVE), (TRAINED, FIVE)]
JOBS = tuple(
    Job(network, classes, method, seed)
    for methods, classes in CASES
    for network in NETWORKS
    for method in methods
    for seed in method.seeds
)


def identity(job: Job, setting: Setting) -> Row:
    """The part of a row that tells it from others."""
    return {
        "network": job.network.name,
        "classes": len(job.classes),
        "method": job.method.name,
        "seed": job.seed,
        **setting.recorded(job.method),
    }


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; a line that an interruption cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"left out an incomplete line of {path}", file=sys.stderr)
    return rows


def append_row(row: Row, path: Path) -> None:
    """Add a line to a file, which is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps(row) + "\n")


def find(rows: Sequence[Row], job: Job, setting: Setting) -> Row | None:
    """The latest row of a job under a setting."""
    wanted = identity(job, setting).items()
    fitting = (row for row in reversed(rows) if all(row.get(k) == v for k, v in wanted))
    return next(fitting, None)


def chosen(job: Job, filters: Sequence[str]) -> bool:
    """Whether any filter NETWORK/CLASSES/METHOD fits; each part is a substring, or left out."""

    def fits(text: str) -> bool:
        parts = text.casefold().split("/")
        return len(parts) <= 3 and all(
            part in name for part, name in zip(parts, job.name.casefold().split("/"), strict=False)
        )

    return not filters or any(fits(text) for text in filters)
