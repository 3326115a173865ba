"""Neuron activity, streamed: one pass over the images gives an atlas of per-class statistics.

For each class and site, the mean output of each neuron over the class's images (the heatmap,
Eq. 12) and its variance. Outputs are added up as they pass and never kept: within a batch in
float32, batches in float64. Classes come one after the other, so only one class's statistics are in
memory, however many classes there are: 16 bytes a neuron, 52 MB for GoogLeNet (the paper's budget,
section 7.4.2, is 94 MB). Finished classes lie on disk as float32.

Layout of an atlas folder: ``atlas.json``, its hashes in ``manifest.json``, and per class
``<index>.safetensors`` with tensors ``heat/<site>`` and ``variance/<site>``, (C, H, W) or (F,).
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta
from safetensors import SafetensorError
from torch import Tensor

from distillnet.errors import InputError, as_path
from distillnet.files.documents import Document, Sha256, Side, Text, read_document
from distillnet.files.manifest import check_sealed, read_manifest, seal
from distillnet.files.tensors import read_tensor, write_tensors
from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.channels import Channels
from distillnet.images import Batch, ImageRef
from distillnet.images.keys import key_digest

__all__ = [
    "Atlas",
    "Moments",
    "collect",
    "open_atlas",
    "write_index",
]

_FORMAT = 2
_INDEX = "atlas.json"
_AT_MOST = 512 * 2**20  # bytes of the index: 40 an image
# Neurons: 128 KB of float32, and no more than what PyTorch gives to one thread: waiting for others
# would cost more than the sums.
_BLOCK = 2**15


@dataclass(frozen=True)
class Atlas:
    """Statistics of a network's neurons, by class, on disk.

    ``counts`` holds the number of images by class index; ``weights_sha256`` and ``input_size``
    tell which network and which shapes they are of. ``images`` holds a ``key_digest`` of each
    image, to keep the search off them.
    """

    directory: Path
    model: str
    weights_sha256: str
    input_size: tuple[int, int]
    sites: tuple[str, ...]
    counts: Mapping[int, int]
    images: frozenset[str] = frozenset()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of the sites
    # Classes and files that were found to be as they were written: read once for that.
    checked: set[int | str] = field(default_factory=set, repr=False, compare=False)

    def has_seen(self, ref: ImageRef) -> bool:
        """Whether statistics are of this image, among others."""
        return key_digest(ref) in self.images

    def heat(self, site: str, classes: Sequence[int]) -> Tensor:
        """Mean output of each neuron per class: float32 (K, C, H, W) or (K, F)."""
        return self._read("heat", site, classes)

    def variance(self, site: str, classes: Sequence[int]) -> Tensor:
        """Variance of each neuron over the class's images: float32 (K, C, H, W) or (K, F)."""
        return self._read("variance", site, classes)

    def _read(self, kind: str, site: str, classes: Sequence[int]) -> Tensor:
        return torch.stack([self._read_class(kind, site, index) for index in classes])

    def _read_class(self, kind: str, site: str, index: int) -> Tensor:
        name = f"{index}.safetensors"
        if index not in self.checked:
            check_sealed(self.directory, read_manifest(self.directory), [name])
            self.checked.add(index)
        try:
            values = read_tensor(self.directory / name, f"{kind}/{site}")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the atlas {self.directory} has no readable statistics of class {index} at "
                f"{site!r} ({error}); collect it again"
            ) from error
        shape = self.shapes[site]
        if tuple(values.shape) == (shape[0], *[1] * (len(shape) - 1)):  # the same all over the map
            values = values.expand(shape)
        found = None
        if values.dtype != torch.float32 or values.shape != shape:
            found = f"{values.dtype} {tuple(values.shape)}"
        elif not bool(torch.isfinite(values).all()):
            found = "NaN or infinity"
        if found:
            raise InputError(
                f"the atlas {self.directory} holds {found} as {kind} of class {index} at {site!r}; "
                f"expected finite torch.float32 {shape}, collect it again"
            )
        return values


class Moments:
    """Mean and summed squared deviation of outputs for one class, by site, in float64.

    Each batch is measured from its first image, and the batches are joined as in Chan, Golub and
    LeVeque (The American Statistician 37, 1983): unlike sums of squares, this tells a neuron that
    hardly varies from one that does not.
    """

    def __init__(self, graph: Graph, sites: Sequence[str], device: torch.device) -> None:
        # float64 is missing on some accelerators.
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.n = 0
        self.shapes = {s: graph[s].shape for s in sites}
        sizes = {s: math.prod(shape) for s, shape in self.shapes.items()}
        self.mean = {s: torch.zeros(n, dtype=wide, device=device) for s, n in sizes.items()}
        self.square = {s: torch.zeros_like(mean) for s, mean in self.mean.items()}

    @classmethod
    def of(cls, n: int, mean: Mapping[str, Tensor], variance: Mapping[str, Tensor]) -> "Moments":
        """Those of n images with such heat and variance by site, as ``tensors`` gives them."""
        made = cls.__new__(cls)
        made.n, made.shapes = n, {site: tuple(x.shape) for site, x in mean.items()}
        made.mean = {s: x.movedim(0, -1).flatten().double() for s, x in mean.items()}
        made.square = {s: n * x.movedim(0, -1).flatten().double() for s, x in variance.items()}
        return made

    def add(self, site: str, x: Tensor) -> None:
        """Take in a batch; ``n`` must not count it yet."""
        x_nf = x.movedim(1, -1).flatten(1)  # (N, H W C), a view of the layout that graphs run in
        # In blocks that stay in the cache while every image is added to them.
        for block in range(0, x_nf.shape[1], _BLOCK):
            part = slice(block, block + _BLOCK)
            self._join(self.mean[site][part], self.square[site][part], x_nf[:, part])

    def add_moments(self, other: "Moments") -> None:
        """Take in what other images gave."""
        if other.n == 0:
            return
        all_ = self.n + other.n
        for site, mean in self.mean.items():
            delta = other.mean[site].to(mean) - mean
            self.square[site] += other.square[site].to(mean)
            self.square[site].addcmul_(delta, delta, value=self.n * other.n / all_)
            mean.add_(delta, alpha=other.n / all_)
        self.n = all_

    def _join(self, mean: Tensor, square: Tensor, x_nf: Tensor) -> None:
        """Join a batch's moments to those so far, in place."""
        first = x_nf[0]
        total, squares, away = torch.zeros_like(first), torch.zeros_like(first), first.clone()
        for row in x_nf[1:]:
            torch.sub(row, first, out=away)
            total.add_(away)
            squares.addcmul_(away, away)
        new, all_ = len(x_nf), self.n + len(x_nf)
        delta = (first - mean).add_(total, alpha=1 / new)
        square.add_(squares)
        square.addcmul_(total, total, value=-1 / new)
        square.addcmul_(delta, delta, value=self.n * new / all_)
        mean.add_(delta, alpha=new / all_)

    def tensors(self) -> dict[str, Tensor]:
        """Heat and variance by site, as an atlas keeps them."""
        result = {}
        for site, mean in self.mean.items():
            variance = (self.square[site] / self.n).clamp_min_(0)
            for kind, flat in (("heat", mean), ("variance", variance)):
                channels, *rest = self.shapes[site]
                values = flat.float().cpu().reshape(*rest, channels).movedim(-1, 0)
                result[f"{kind}/{site}"] = values.contiguous()
        return result


def collect(
    graph: Graph,
    channels: Channels,
    batches: Iterable[Batch],
    directory: str | Path,
    *,
    model: str,
    weights_sha256: str,
    on_images: Callable[[int], None] | None = None,
) -> Atlas:
    """Run every image once and write the statistics of each class (section 7.3.1 and Eq. 12).

    The result does not depend on the size of the batches, but for rounding.

    Args:
        batches: images in the order of their classes: all of one class, then all of the next.
        directory: an empty folder to write to.
        on_images: called with the number of images of each part that is done.

    Raises:
        InputError: an output is not finite, which means that weights or preprocessing are wrong.
    """
    directory = as_path(directory, "the folder for statistics")
    device = next(iter(graph.params.values())).device
    counts: dict[int, int] = {}
    seen: set[str] = set()
    current: int | None = None
    moments = Moments(graph, channels.sites, device)
    sites = frozenset(channels.sites)

    def finish() -> None:
        if current is not None:
            tensors = moments.tensors()
            for name, tensor in tensors.items():
                if not bool(torch.isfinite(tensor).all()):
                    raise InputError(
                        f"outputs at {name.partition('/')[2]!r} are not finite on images of class "
                        f"{current}; expected numbers. Check the weights and the preprocessing."
                    )
            write_tensors(tensors, directory / f"{current}.safetensors")
            counts[current] = moments.n

    def observe(name: str, x: Tensor) -> None:
        if name in sites:
            moments.add(name, x)

    with torch.inference_mode():
        for batch in batches:
            seen.update(map(key_digest, batch.refs))
            for label, x in _by_class(batch):
                if label != current:
                    finish()
                    if label in counts:
                        raise ValueError(f"images of class {label} are not together")
                    current, moments = label, Moments(graph, channels.sites, device)
                run(graph, {graph.input.name: fast_layout(x.to(device))}, observe=observe)
                moments.n += len(x)
                if on_images is not None:
                    on_images(len(x))
        finish()
    size = graph.input.shape[1:]
    atlas = Atlas(
        directory,
        model,
        weights_sha256,
        (size[0], size[1]),
        tuple(channels.sites),
        counts,
        frozenset(seen),
        {site: graph[site].shape for site in channels.sites},
    )
    write_index(atlas)
    return atlas


def _by_class(batch: Batch) -> Iterable[tuple[int, Tensor]]:
    """The batch cut where the class changes."""
    labels = batch.labels_n.tolist()
    start = 0
    for stop in range(1, len(labels) + 1):
        if stop == len(labels) or labels[stop] != labels[start]:
            yield labels[start], batch.x_nchw[start:stop]
            start = stop


def write_index(atlas: Atlas, others: Iterable[str] = ()) -> None:
    """Write ``atlas.json`` and the manifest, of ``others`` among the folder's files as well."""
    index = {
        "format": _FORMAT,
        "model": Path(atlas.model).name,
        "weights_sha256": atlas.weights_sha256,
        "input_size": list(atlas.input_size),
        "sites": {site: list(shape) for site, shape in atlas.shapes.items()},
        "counts": {str(c): n for c, n in atlas.counts.items()},
        "images": sorted(atlas.images),
    }
    (atlas.directory / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    seal(atlas.directory, [_INDEX, *(f"{c}.safetensors" for c in atlas.counts), *others])


_Class = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,5})$")]
_Images = Annotated[int, Meta(ge=1, le=2**40)]
_Shape = Annotated[tuple[Side, ...], Meta(min_length=1, max_length=3)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class _Index(Document, frozen=True):
    """``atlas.json``."""

    format: int
    model: Text
    weights_sha256: Sha256
    input_size: tuple[Side, Side]
    sites: dict[Text, _Shape]
    counts: Annotated[dict[_Class, _Images], Meta(min_length=1)]
    images: list[_Digest]

    def __post_init__(self) -> None:
        if len(set(self.images)) != len(self.images):
            raise ValueError("images that are listed twice, expected each once")


def open_atlas(directory: str | Path) -> Atlas:
    """An atlas that ``collect`` wrote; InputError where there is none, or a damaged one."""
    directory = as_path(directory, "the atlas")
    if not (directory / _INDEX).is_file():
        raise InputError(
            f"{directory} is not an atlas (it has no {_INDEX}); expected a folder that `distillnet "
            "collect` wrote"
        )
    index = read_document(
        directory / _INDEX, _Index, "collect it again", format_=_FORMAT, at_most=_AT_MOST
    )
    check_sealed(directory, read_manifest(directory), [_INDEX])
    return Atlas(
        directory,
        index.model,
        index.weights_sha256,
        index.input_size,
        tuple(index.sites),
        {int(c): n for c, n in index.counts.items()},
        frozenset(index.images),
        index.sites,
    )
