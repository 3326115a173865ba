"""An atlas that missions are made from: ``evidence.json`` and what lies beside it.

docs/atlas.md has the layout. All of it may come from anybody: JSON is read against a schema,
tensors are checked for type and shape against the network's own before anything is made of them,
and hashes tell damage.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from safetensors import SafetensorError
from torch import Tensor

from distillnet.atlas import Atlas, open_atlas, write_index
from distillnet.classes import ClassTable
from distillnet.errors import InputError, as_path
from distillnet.files.documents import Count, Document, Sha256, Text, read_document
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.files.tensors import read_tensor, read_tensors, write_tensors
from distillnet.graph import Graph
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.documents import ClassEntry, PreprocessingDocument
from distillnet.job.layout import place_of
from distillnet.job.results import finite_json
from distillnet.missions.checks import DIGEST_BYTES, fits, is_sound
from distillnet.missions.gathering import PER_IMAGE, Gathered
from distillnet.missions.noise.notes import read_noise
from distillnet.missions.records import Record
from distillnet.missions.rows import places_of, unpack_rows

__all__ = [
    "EVIDENCE",
    "MissionAtlas",
    "class_file",
    "computed_from",
    "evidence_file",
    "open_mission_atlas",
    "write_class",
    "write_evidence",
]

EVIDENCE = "evidence.json"
FORMAT = 1
_REMEDY = "collect it again"
_MOST = 8000  # samples of a mission; more take time and change little

_Index = Annotated[int, Meta(ge=0, lt=100_000)]
_ClassKey = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,5})$")]
_Source = Annotated[str, Meta(pattern="^(data|weights|class_names|model)$")]


class _Evidence(Document, frozen=True):
    """``evidence.json``."""

    format: int
    model: Text
    weights_sha256: Sha256
    preprocessing: PreprocessingDocument
    n_classes: Annotated[int, Meta(ge=2, le=100_000)]
    classes: Annotated[list[ClassEntry], Meta(min_length=1)]
    per_image: Annotated[int, Meta(ge=1, le=10_000)]
    samples: dict[_ClassKey, Count]
    most_samples: Annotated[int, Meta(ge=1, le=10**7)]
    sources: dict[_Source, Text | None]

    def __post_init__(self) -> None:
        indices = [c.index for c in self.classes]
        if len(set(indices)) != len(indices) or max(indices) >= self.n_classes:
            raise ValueError(f"classes {indices}, expected each once and below {self.n_classes}")
        if {str(i) for i in indices} != set(self.samples):
            raise ValueError("samples of other classes than are listed")


@dataclass(frozen=True)
class MissionAtlas:
    """An atlas with all that a mission is made from.

    Attributes:
        statistics: heatmaps and variances, and how many images there were of each class.
        samples: kept of each class.
        most_samples: that were asked for.
        classes: of the network; those without evidence are called by their numbers.
        sources: where the network's file, its weights and class names lie, if that is known.
    """

    statistics: Atlas
    preprocessing: Preprocessing
    classes: ClassTable
    samples: Mapping[int, int]
    most_samples: int
    sources: Mapping[str, str | None] = field(default_factory=dict)
    # Looked up once; see ``_image_of``.
    image_of: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def directory(self) -> Path:
        return self.statistics.directory

    def images(self, index: int) -> frozenset[bytes]:
        """Digests of the images of a class by their content."""
        rows = self._read(
            index, "images", torch.uint8, (self.statistics.counts[index], DIGEST_BYTES)
        )
        return frozenset(map(bytes, rows.numpy()))

    def need(self, layer: str, size: int, classes: Sequence[int]) -> Tensor:
        """What missions of these classes feel of a layer's outputs (M, M) float64."""
        total = torch.zeros(size, size, dtype=torch.float64)
        rows, columns = torch.triu_indices(size, size)
        for index in classes:
            half = self._read(index, f"need/{layer}", torch.float32, (len(rows),)).double()
            total[rows, columns] += half / len(classes)
        if bool((total.diagonal() < 0).any()):
            raise InputError(
                f"{self.directory} holds sums of squares below 0 as need/{layer}; {_REMEDY}"
            )
        return total + total.T - torch.diag(total.diagonal())

    def rows(self, record: Record, classes: Sequence[int], most: int = _MOST) -> Tensor:
        """What is recorded of samples of some classes, as many of each: (R, width) float32.

        Classes come one after the other, and so do the samples of an image.
        """
        parts = []
        for index, count in zip(classes, self.counts(classes, most), strict=True):
            n = self.samples[index]
            packed = self._read(index, record.name, torch.int8, (n, record.width))
            scale = self._read(index, f"{record.name}#scale", torch.float32, (n,))
            order = torch.argsort(self._image_of(index)[:count], stable=True)
            parts.append(unpack_rows(packed[order], scale[order]))
        return torch.cat(parts)

    def images_of_rows(self, classes: Sequence[int], most: int = _MOST) -> Tensor:
        """Which image each of ``rows`` is of: (R,), numbered from 0, ascending."""
        parts, so_far = [], 0
        for index, count in zip(classes, self.counts(classes, most), strict=True):
            image = self._image_of(index)[:count].sort().values
            _, numbers = image.unique_consecutive(return_inverse=True)
            parts.append(numbers + so_far)
            so_far += int(numbers[-1]) + 1
        return torch.cat(parts)

    def _image_of(self, index: int) -> Tensor:
        """Which of a class's images each sample is of (R,): keys follow from images (``rows``)."""
        if index not in self.image_of:
            digests = self._read(
                index, "images", torch.uint8, (self.statistics.counts[index], DIGEST_BYTES)
            )
            keys = self._read(index, "keys", torch.int64, (self.samples[index],))
            drawn, _ = places_of(list(map(bytes, digests.numpy())), PER_IMAGE)
            ordered, by = drawn.flatten().sort()
            at = torch.searchsorted(ordered, keys).clamp_max(len(ordered) - 1)
            if not torch.equal(ordered[at], keys):
                raise InputError(
                    f"{self.directory / evidence_file(index)} has samples of other images than it "
                    f"lists; {_REMEDY}"
                )
            self.image_of[index] = by[at] // PER_IMAGE
        return self.image_of[index]

    def counts(self, classes: Sequence[int], most: int = _MOST) -> list[int]:
        """How many samples of each class are taken: those of the smallest keys."""
        return [min(self.samples[index], max(1, most // len(classes))) for index in classes]

    def tensors(self, index: int) -> dict[str, Tensor]:
        """All that is kept of a class beside heatmaps and variances, of consistent shapes."""
        self._check_file(index)
        path = self.directory / evidence_file(index)
        try:
            found = read_tensors(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}); {_REMEDY}") from error
        n, images = self.samples[index], self.statistics.counts[index]
        for name, values in found.items():
            if not fits(name, values, n, images, found) or not is_sound(name, values):
                raise InputError(
                    f"{path} holds {values.dtype} {tuple(values.shape)} as {name!r}, which does "
                    f"not fit {n} samples of {images} images; {_REMEDY}"
                )
        if missing := {"keys", "images"} - set(found):
            raise InputError(f"{path} has no {sorted(missing)[0]!r}; {_REMEDY}")
        return found

    def check_network(
        self, graph: Graph, weights_sha256: str, preprocessing: Preprocessing
    ) -> None:
        """Raise InputError where the atlas is of another network, weights or preprocessing."""
        sites = self.statistics.shapes
        for what, found, expected in (
            ("weights", self.statistics.weights_sha256, weights_sha256),
            ("preprocessing", self.preprocessing, preprocessing),
            ("layers", dict(sites), {s: graph[s].shape for s in sites if s in _names(graph)}),
        ):
            if found != expected:
                raise InputError(
                    f"the atlas {self.directory} is of other {what} ({str(found)[:80]} instead of "
                    f"{str(expected)[:80]}); collect it again with this network, or name the one "
                    "that it was collected with"
                )

    def _check_file(self, index: int) -> None:
        file, checked = evidence_file(index), self.statistics.checked
        if file not in checked:
            check_sealed(self.directory, read_manifest(self.directory), [file])
            checked.add(file)

    def _read(self, index: int, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        self._check_file(index)
        file = evidence_file(index)
        try:
            values = read_tensor(self.directory / file, name)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.directory / file} has no readable {name!r} ({error}); {_REMEDY}"
            ) from error
        there = tuple(values.shape)
        if there != shape or values.dtype != dtype:
            raise InputError(
                f"{self.directory / file} holds {values.dtype} {there} as {name!r}; expected "
                f"{dtype} {shape}, {_REMEDY}"
            )
        if not is_sound(name, values):
            raise InputError(
                f"{self.directory / file} holds NaN or numbers that no network gives as {name!r}; "
                f"{_REMEDY}"
            )
        return values


@contextmanager
def computed_from(atlas: MissionAtlas) -> Iterator[None]:
    """InputError where what an atlas holds of a mission is no covariance of anything."""
    try:
        yield
    except torch.linalg.LinAlgError as error:
        raise InputError(
            f"{atlas.directory} holds numbers that nothing can be fitted to "
            f"({str(error).splitlines()[0]}); {_REMEDY}"
        ) from error


def _names(graph: Graph) -> set[str]:
    return {node.name for node in graph.nodes}


def class_file(index: int) -> str:
    """The name of a class's heatmaps and variances."""
    return f"{index}.safetensors"


def evidence_file(index: int) -> str:
    """The name of a class's samples and needs."""
    return f"{index}.evidence.safetensors"


def write_class(done: Gathered, index: int, directory: Path) -> None:
    """Write what was gathered of a class."""
    tensors = done.moments.tensors()
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"outputs at {name.partition('/')[2]!r} are not finite on images of class "
                f"{index}; expected numbers. Check the weights and the preprocessing."
            )
    write_tensors(tensors, directory / class_file(index))
    evidence = {"keys": done.keys, **done.rows}
    for layer, need in done.needs.items():
        rows, columns = torch.triu_indices(len(need), len(need))
        evidence[f"need/{layer}"] = (need[rows, columns] / done.moments.n).float().cpu()
    digests = torch.tensor([list(digest) for digest in sorted(done.images)], dtype=torch.uint8)
    evidence["images"] = digests.reshape(-1, DIGEST_BYTES)
    kept = {name: tensor.contiguous() for name, tensor in evidence.items()}
    write_tensors(kept, directory / evidence_file(index))


def write_evidence(atlas: MissionAtlas) -> None:
    """Write ``atlas.json``, ``evidence.json`` and the manifest into a folder of all classes."""
    table, indices = atlas.classes, sorted(atlas.samples)
    values: dict[str, Any] = {
        "format": FORMAT,
        "model": Path(atlas.statistics.model).name,
        "weights_sha256": atlas.statistics.weights_sha256,
        "preprocessing": asdict(atlas.preprocessing),
        "n_classes": len(table),
        "classes": [
            {"index": i, "name": table.names[i], "aliases": list(table.aliases[i])} for i in indices
        ],
        "per_image": PER_IMAGE,
        "samples": {str(i): atlas.samples[i] for i in indices},
        "most_samples": atlas.most_samples,
        "sources": dict(atlas.sources),
    }
    text = json.dumps(finite_json(values), indent=1, allow_nan=False)
    (atlas.directory / EVIDENCE).write_text(text + "\n", encoding="utf-8")
    write_index(atlas.statistics, [EVIDENCE, *(evidence_file(i) for i in indices)])


def open_mission_atlas(directory: str | Path) -> MissionAtlas:
    """An atlas of ``collect``; InputError where there is none, a damaged or an older one."""
    directory = as_path(directory, "the atlas")
    statistics = open_atlas(directory)
    if (noise := read_noise(directory)) is not None:
        raise InputError(
            f"{directory} holds sums with {noise}, and no samples, which a refit needs; expected "
            "an atlas that was collected without --noise. With images to search on, `distill "
            "--method paper --atlas` takes it"
        )
    if not (directory / EVIDENCE).is_file():
        raise InputError(
            f"{directory} holds heatmaps alone (it has no {EVIDENCE}): a run's own statistics, or "
            "an atlas of an older version; expected one that `distillnet collect` wrote"
        )
    check_sealed(directory, read_manifest(directory), [EVIDENCE])
    found = read_document(directory / EVIDENCE, _Evidence, _REMEDY, format_=FORMAT)
    indices = {c.index: c for c in found.classes}
    if set(indices) != set(statistics.counts) or found.weights_sha256 != statistics.weights_sha256:
        raise InputError(f"{directory} has other classes or weights in its two indices; {_REMEDY}")
    if found.per_image != PER_IMAGE:
        raise InputError(
            f"{directory} samples {found.per_image} places of an image; this version {PER_IMAGE}. "
            "Collect it again"
        )
    every = range(found.n_classes)
    table = ClassTable(
        tuple(indices[i].name if i in indices else str(i) for i in every),
        tuple(tuple(indices[i].aliases) if i in indices else () for i in every),
    )
    return MissionAtlas(
        statistics,
        found.preprocessing.preprocessing(),
        table,
        {int(c): n for c, n in found.samples.items()},
        found.most_samples,
        {name: place_of(directory, path) for name, path in found.sources.items()},
    )
