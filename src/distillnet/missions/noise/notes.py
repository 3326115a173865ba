"""``noise.json``: that an atlas holds sums with noise in them, and how much."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from distillnet.errors import InputError
from distillnet.files.documents import Document, read_document
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.files.tensors import write_tensors

__all__ = ["NOISE", "Noise", "read_noise", "write_heat", "write_noise"]

NOISE = "noise.json"
_FORMAT = 1
_REMEDY = "collect it again"


@dataclass(frozen=True)
class Noise:
    """The noise in an atlas.

    Attributes:
        epsilon, delta: what holds for each image that one of the parts was made of.
        rho: the same, concentrated: parts that were made of one image add up in it.
        parts: how many atlases were added up, each with its own noise.
        deviation: of the noise in the sums, in images: by so many the count of a class is off.
    """

    epsilon: float
    delta: float
    rho: float
    parts: int
    deviation: float

    def __str__(self) -> str:
        return f"noise of epsilon {self.epsilon:g}, delta {self.delta:g}"


_Positive = Annotated[float, Meta(gt=0, le=1e9)]


class _Document(Document, frozen=True):
    format: int
    epsilon: _Positive
    delta: Annotated[float, Meta(gt=0, lt=1)]
    rho: _Positive
    parts: Annotated[int, Meta(ge=1, le=10**6)]
    deviation: _Positive


def write_noise(noise: Noise, directory: Path) -> None:
    """Write the note into an atlas's folder."""
    text = json.dumps({"format": _FORMAT} | asdict(noise), indent=1, allow_nan=False)
    (directory / NOISE).write_text(text + "\n", encoding="utf-8")


def read_noise(directory: Path) -> Noise | None:
    """The noise in an atlas; None where there is none.

    Raises:
        InputError: the note is damaged.
    """
    manifest = read_manifest(directory)
    if NOISE not in manifest.files and not (directory / NOISE).exists():
        return None
    if NOISE not in manifest.files:
        raise InputError(f"{directory / NOISE} is not in the atlas's manifest; {_REMEDY}")
    check_sealed(directory, manifest, [NOISE])
    found = read_document(directory / NOISE, _Document, _REMEDY, format_=_FORMAT)
    return Noise(found.epsilon, found.delta, found.rho, found.parts, found.deviation)


def write_heat(
    heat: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    index: int,
    directory: Path,
) -> None:
    """Write a class's means by channel (C,); zero at sites that sums tell nothing of.

    A mean that is the same all over the map is written once, (C, 1, 1).
    """
    tensors = {}
    for site, (channels, *rest) in shapes.items():
        values = heat.get(site, torch.zeros(channels))
        tensors[f"heat/{site}"] = values.reshape(channels, *[1] * len(rest)).contiguous()
    write_tensors(tensors, directory / f"{index}.safetensors")
