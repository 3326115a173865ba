"""What some images of a class gave, as tensors in a file: kept until the class is whole.

Sums are float64, so that parts add up to what all images together give, to rounding.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from distillnet.atlas import Moments
from distillnet.files.tensors import read_tensors, write_tensors
from distillnet.files.writing import replace_file
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.missions.gathering import Gathered

__all__ = ["gathered_from", "read_part", "tensors_of", "write_part"]


def tensors_of(done: Gathered) -> dict[str, Tensor]:
    """All of it, by name."""
    moments = done.moments
    tensors = {"keys": done.keys, "n": torch.tensor(moments.n)}
    for name, lines in (("images", done.images), ("seen", done.seen)):
        tensors[name] = torch.tensor([list(x) for x in lines], dtype=torch.uint8).reshape(-1, 16)
    for kind, values in (
        ("mean", moments.mean),
        ("square", moments.square),
        ("need", done.needs),
        ("rows", done.rows),
    ):
        tensors |= {f"{kind}/{name}": value.cpu().contiguous() for name, value in values.items()}
    return tensors


def gathered_from(tensors: dict[str, Tensor], graph: Graph, channels: Channels) -> Gathered:
    """What ``tensors_of`` was asked of; KeyError where something is missing."""

    def of(kind: str) -> dict[str, Tensor]:
        start = f"{kind}/"
        return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}

    moments = Moments(graph, channels.sites, torch.device("cpu"))
    moments.n = int(tensors["n"])
    moments.mean, moments.square = of("mean"), of("square")
    images, seen = (list(map(bytes, tensors[name].numpy())) for name in ("images", "seen"))
    return Gathered(moments, of("need"), tensors["keys"], of("rows"), images, seen)


def write_part(done: Gathered, path: Path) -> None:
    """Keep a part, whole or not at all."""
    with replace_file(path) as work:
        write_tensors(tensors_of(done), work)


def read_part(path: Path, graph: Graph, channels: Channels) -> Gathered | None:
    """A part that was kept; None where there is none, or it cannot be read."""
    try:
        return gathered_from(read_tensors(path), graph, channels)
    except (OSError, SafetensorError, KeyError):
        return None
