"""A run and all that is at hand of it: what a page can show, and what is missing for more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from safetensors import SafetensorError
from torch import Tensor

from distillnet.atlas import Atlas, open_atlas
from distillnet.cut.bitmaps import unpack
from distillnet.deploy.networks import original_model
from distillnet.errors import ImageError, InputError, UnsupportedError
from distillnet.files.documents import Positive, Text, read_document
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.files.tensors import read_tensors
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import ImageSet, open_images
from distillnet.images.preprocessing import Size
from distillnet.job.provenance import held_out
from distillnet.job.runs import Run
from distillnet.missions.unknown import RULE, read_curve, read_rule
from distillnet.models import Model, random_model

__all__ = ["Bench", "Original", "Refusals", "Subject", "gather", "read_bitmaps"]

_AT_MOST = 16 * 2**20  # bytes of bench.json
_MOST_ENTRIES = 1000
_MOST_LAYERS = 5000


class _Entry(msgspec.Struct, frozen=True):
    network: Text
    runtime: Text
    batch: int
    median_ms: Positive
    p05_ms: Positive
    p95_ms: Positive
    bytes: int
    precision: Text = "float32"


class _LayerTime(msgspec.Struct, frozen=True):
    name: Text
    ms: float


class _LayerTimes(msgspec.Struct, frozen=True):
    original: list[_LayerTime]
    distilled: list[_LayerTime]


class Bench(msgspec.Struct, frozen=True):
    """What of ``bench.json`` a page shows; it may hold more."""

    threads: int
    machine: Text
    entries: Annotated[list[_Entry], msgspec.Meta(max_length=_MOST_ENTRIES)]
    time_ratio: dict[Text, Positive]
    layers: _LayerTimes | None = None


@dataclass(frozen=True)
class Original:
    """The network that a run came from.

    Attributes:
        graph: at its own input size; ``smaller`` at that of the distilled network.
        own_weights: whether its weights are those that were distilled; without them there are only
            its layers.
    """

    model: Model
    graph: Graph
    channels: Channels
    smaller: Graph
    own_weights: bool


@dataclass(frozen=True)
class Refusals:
    """How a run's rule for unknown images does on images that it was not fitted on.

    Attributes:
        figures: as ``unknown.json`` has them, by name.
        curve: shares of the mission's images refused and of other images accepted, by threshold.
    """

    figures: Mapping[str, float | int | None]
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Subject:
    """What is known of a run.

    Attributes:
        front: figures of the networks for other budgets, the smallest first.
        keep: fused keep maps by site; a site without one is kept whole.
        class_keep: the same by class index, where the search looked at classes one by one.
        lacks: why something that could be here is not, by its attribute.
    """

    run: Run
    front: tuple[dict[str, Any], ...]
    keep: Mapping[str, Tensor]
    class_keep: Mapping[int, Mapping[str, Tensor]]
    bench: Bench | None
    atlas: Atlas | None
    original: Original | None
    images: ImageSet | None
    lacks: Mapping[str, str]
    refusals: Refusals | None = None

    @property
    def result(self) -> dict[str, Any]:
        """``result.json``."""
        return self.run.result


def gather(
    run: Run,
    *,
    data: Path | None = None,
    model: str | None = None,
    weights: Path | None = None,
    images: bool = True,
) -> Subject:
    """All that is at hand of a run.

    Args:
        data: a folder of images; by default those that were held out, where they lie as they did.
        model: the original as the user names it, whose own weights may be downloaded then; without
            it nothing is downloaded, and no Python of a run is run.
        weights: of the original; by default those that the run came from, where they lie as they
            did.
        images: whether to look for images at all.

    Raises:
        InputError: a file of the run is damaged, or what was given is not what was distilled.
    """
    _check_layers(run)
    lacks: dict[str, str] = {}
    fused, class_keep = read_bitmaps(run, run.directory)
    return Subject(
        run=run,
        front=run.front,
        keep=fused,
        class_keep=class_keep,
        bench=_bench(run.directory),
        atlas=_atlas(run, lacks),
        original=_original(run, model, weights, lacks),
        images=_images(run, data, lacks) if images else None,
        lacks=lacks,
        refusals=_refusals(run.directory, lacks),
    )


def _check_layers(run: Run) -> None:
    """Raise InputError for layers that there cannot be: figures may come from anybody."""
    layers = run.result["layers"]
    if len(layers) > _MOST_LAYERS or any(
        not 0 < layer["channels"] <= layer["neurons"] for layer in layers
    ):
        raise InputError(
            f"{run.directory / 'result.json'} tells of {len(layers)} layers, some without channels "
            f"or neurons, or of more than {_MOST_LAYERS}; distill again"
        )


def read_bitmaps(run: Run, folder: Path) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """Keep maps of a run, or of a network on its front: fused by site, and by class and site."""
    path = folder / "bitmaps.safetensors"
    within = path.relative_to(run.directory).as_posix()
    check_sealed(run.directory, read_manifest(run.directory), [within])
    try:
        packed = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); distill again") from error
    fused: dict[str, Tensor] = {}
    classes: dict[int, dict[str, Tensor]] = {}
    for name, keep in unpack(packed).items():
        owner, _, site = name.partition("/")
        if owner == "fused":
            fused[site] = keep
        elif owner.isdecimal() and int(owner) in run.mission.indices:
            classes.setdefault(int(owner), {})[site] = keep
    return fused, classes


def _bench(directory: Path) -> Bench | None:
    path = directory / "bench.json"
    if not path.exists():
        return None
    return read_document(path, Bench, "bench again", at_most=_AT_MOST)


def _atlas(run: Run, lacks: dict[str, str]) -> Atlas | None:
    given, taken_from = run.sources.get("atlas"), run.sources.get("from")
    folders = [run.directory / "atlas"]
    folders += [Path(given)] if given else []
    folders += [Path(taken_from) / "atlas"] if taken_from else []
    for folder in folders:
        if (folder / "atlas.json").is_file():
            atlas = open_atlas(folder)
            if atlas.weights_sha256 == run.weights_sha256 and all(
                atlas.counts.get(c) for c in run.mission.indices
            ):
                return atlas
    lacks["atlas"] = "the run has no statistics of these classes (a folder atlas/)"
    return None


def _refusals(directory: Path, lacks: dict[str, str]) -> Refusals | None:
    if not (directory / RULE).exists():
        return None
    try:
        return Refusals(read_rule(directory)[1], read_curve(directory))
    except InputError as error:  # of another network, often: the run was distilled again
        lacks["refusals"] = str(error).replace(str(directory), directory.resolve().name)
        return None


def _original(
    run: Run, model: str | None, weights: Path | None, lacks: dict[str, str]
) -> Original | None:
    if weights is not None:
        run = replace(run, sources={**run.sources, "weights": str(weights)})
    at_hand = run.sources.get("weights")
    own = model is not None or (at_hand is not None and Path(at_hand).exists())
    own = own or (_is_programme(run) and at_hand is None)
    height, width = run.result["baseline"]["input_size"]
    spec = model or str(run.result["model"])
    if not own and ".py:" in spec:
        lacks["original"] = f"the original is {spec}, which runs only if you name it with --model"
        return None
    if own:
        loaded = original_model(run, named=model)
        if loaded.weights_sha256 != run.weights_sha256:
            raise InputError(
                f"found weights of {loaded.name} with SHA-256 {loaded.weights_sha256[:12]}..., but "
                f"{run.directory} is made of {run.weights_sha256[:12]}...; expected the weights "
                "that were distilled, pass them with --weights"
            )
    else:
        lacks["weights"] = "the original's weights are not where they were"
        skeleton = _skeleton(run, spec, height)
        if skeleton is None:
            lacks["original"] = f"{spec} is not available"
            return None
        loaded = skeleton
    small: Size = (run.preprocessing.input_size[0], run.preprocessing.input_size[1])
    try:
        graph = capture_model(loaded, (height, width))
        smaller = graph if small == (height, width) else capture_model(loaded, small)
    except UnsupportedError as error:
        raise InputError(
            f"{spec} is not the network that {run.directory} was distilled from ({error}); name it "
            "with --model"
        ) from error
    return Original(loaded, graph, analyse(graph), smaller, own)


def _is_programme(run: Run) -> bool:
    """Whether the original is a ``.pt2`` that lies where it did: read, never run."""
    file = run.sources.get("model")
    return file is not None and file.endswith(".pt2") and Path(file).is_file()


def _skeleton(run: Run, spec: str, side: int) -> Model | None:
    """The original's layers with random weights; None where not even they are at hand."""
    try:
        return random_model(spec, input_size=side, run_code=False)
    except InputError:
        return None


def _images(run: Run, data: Path | None, lacks: dict[str, str]) -> ImageSet | None:
    if data is not None:
        folders = open_images(data, run.classes, run.mission)
        return (folders.val or folders.train).select(run.mission.indices)
    source = run.sources.get("val") or run.sources.get("data")
    if not run.result["n_images"]["val"]:
        lacks["images"] = "the run was made from an atlas, and no image was read for its figures"
        return None
    try:
        return held_out(run.directory, source, run.classes, run.mission)[0]
    except ImageError:
        lacks["images"] = "the images behind the figures are not where they were"
        return None
