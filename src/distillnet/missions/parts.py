"""What some images of a class gave, as tensors in a file: kept until the class is whole.

Sums are float64, so that parts add up to what all images together give, to rounding. A part that
was damaged, or does not fit the network, is none: its images are looked at again. Processes that
share a pass send each other the same tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
from msgspec import Meta
from safetensors import SafetensorError
from torch import Tensor

from distillnet.atlas import Moments
from distillnet.errors import InputError
from distillnet.files.documents import Document, read_document
from distillnet.files.tensors import read_tensors, write_tensors
from distillnet.files.writing import replace_file
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.missions.gathering import PER_IMAGE, Gathered, Gatherer
from distillnet.models.ranks import Ranks

__all__ = [
    "DIGEST",
    "INDEX",
    "digest_of",
    "gather",
    "gathered_from",
    "parts_kept",
    "read_part",
    "tensors_of",
    "write_part",
    "write_parts_index",
]

INDEX = "collect.json"
_FORMAT = 1
_REMEDY = "leave out --resume to begin"
DIGEST = "digest"  # of all else in the file


class _Index(Document, frozen=True):
    """Into how many parts classes are cut, and what all of them depend on."""

    format: int
    parts: Annotated[int, Meta(ge=1, le=100_000)]
    settings: dict[str, Any]


def write_parts_index(folder: Path, parts: int, settings: Mapping[str, Any]) -> None:
    """Write what the parts in a folder are of."""
    index = {"format": _FORMAT, "parts": parts, "settings": settings}
    with replace_file(folder / INDEX) as work:
        work.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def parts_kept(folder: Path, settings: Mapping[str, Any]) -> int:
    """Into how many parts an interrupted pass of these settings has cut classes.

    Raises:
        InputError: none was interrupted here, or one of other settings.
    """
    path = folder / INDEX
    if not path.exists():
        raise InputError(
            f"found no {path}; expected what an interrupted collect left there. Leave out "
            "--resume to begin"
        )
    index = read_document(path, _Index, _REMEDY, format_=_FORMAT)
    for name, value in settings.items():
        if index.settings.get(name) != value:
            raise InputError(
                f"{folder} is of other {name} ({str(index.settings.get(name))[:80]} instead of "
                f"{str(value)[:80]}); give the same, or leave out --resume"
            )
    return index.parts


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
    """What ``tensors_of`` was asked of."""

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
    tensors = tensors_of(done)
    with replace_file(path) as work:
        write_tensors({**tensors, DIGEST: digest_of(tensors)}, work)


def read_part(path: Path, graph: Graph, channels: Channels) -> Gathered | None:
    """A part that was kept; None where there is none that is as it was written."""
    try:
        tensors = read_tensors(path)
    except (OSError, SafetensorError):
        return None
    digest = tensors.pop(DIGEST, None)
    if not _fits(tensors, graph, channels):
        return None
    if digest is None or not torch.equal(digest, digest_of(tensors)):
        return None
    return gathered_from(tensors, graph, channels)


def digest_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """SHA-256 of names, types, shapes and bytes of tensors, as bytes (32,)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _fits(tensors: Mapping[str, Tensor], graph: Graph, channels: Channels) -> bool:
    """Whether these are tensors of this network's parts, by name, type and shape, and finite."""
    nothing = tensors_of(Gatherer(graph, channels, 0, 1).gathered)
    if set(tensors) != set(nothing):
        return False
    samples, images = (t.shape[0] if t.ndim else -1 for t in (tensors["keys"], tensors["seen"]))
    for name, like in nothing.items():
        found = tensors[name]
        shape = list(like.shape)
        if shape[:1] == [0]:  # a row of each image, or of each sample
            shape[0] = images if name in ("images", "seen") else samples
        if found.dtype != like.dtype or list(found.shape) != shape:
            return False
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            return False
    return images == int(tensors["n"]) and samples <= images * PER_IMAGE


def gather(
    ranks: Ranks, mine: Gathered | None, graph: Graph, channels: Channels, samples: int
) -> Gathered | None:
    """What all processes have gathered together, in the first; None in others."""
    if ranks.count == 1:
        return mine
    sent = None if mine is None else tensors_of(mine)
    boxes: list[dict[str, Tensor] | None] = [None] * ranks.count
    dist.gather_object(sent, boxes if ranks.first else None)
    total = None
    for box in boxes:
        if box is not None:
            more = gathered_from(box, graph, channels)
            if total is None:
                total = more
            else:
                total.add(more, samples)
    return total
