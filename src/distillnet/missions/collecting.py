"""One pass over images, class by class: an atlas that any mission of these classes is made from.

Several processes share the work (``parts``): the images of a class are cut into parts, each done
by one of them and kept in ``OUT/unfinished`` at once. What was kept is not done again, whoever did
it, so whatever ends a pass, the same command with ``--resume`` goes on, and no image counts twice.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distillnet.atlas import Atlas
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import ImageSet, OpenFiles, image_digest
from distillnet.images.keys import files_digest, key_digest
from distillnet.job.distill import Progress, pick_device
from distillnet.job.layout import UNFINISHED
from distillnet.job.options import Options
from distillnet.missions.files import MissionAtlas, write_class, write_evidence
from distillnet.missions.gathering import Gathered, Gatherer
from distillnet.missions.parts import (
    INDEX,
    gather,
    parts_kept,
    read_part,
    write_part,
    write_parts_index,
)
from distillnet.models import Model
from distillnet.models.ranks import ALONE, Ranks

__all__ = ["SAMPLES", "Collection", "Pass", "collect_atlas", "collect_model"]

SAMPLES = 2000  # of each class


@dataclass(frozen=True)
class Pass:
    """How to go over the images.

    Attributes:
        samples: to keep of each class.
        min_images: that a class needs; those of fewer are left out.
        resume: whether to take up what was kept of an interrupted pass.
        ranks: the processes that share the work.
    """

    samples: int = SAMPLES
    min_images: int = 1
    resume: bool = False
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"found --samples {self.samples}; expected 1 or more")


@dataclass(frozen=True)
class Collection:
    """What a pass gave.

    Attributes:
        atlas: None in processes that only help another.
        unreadable: a message for each image that could not be read, of this process's.
        left_out: names and numbers of images of classes that have too few.
    """

    atlas: MissionAtlas | None
    unreadable: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def collect_atlas(
    model: Model,
    graph: Graph,
    channels: Channels,
    images: ImageSet,
    directory: Path,
    out: Path,
    how: Pass,
    options: Options,
    sources: Mapping[str, str | None] | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Collection:
    """Collect an atlas of ``images`` into ``directory``.

    Args:
        graph: on the device to compute on.
        directory: an empty folder; only the first process writes there.
        out: where the atlas will lie, and parts of it until then.
        options: how images are read.

    Raises:
        InputError: no class has images enough, or what is to be resumed is of another pass.
    """
    counts = images.counts()
    few = {model.classes.names[c]: n for c, n in counts.items() if n < how.min_images}
    classes = sorted(c for c, n in counts.items() if n >= how.min_images)
    if not classes:
        raise InputError(
            f"no class has {how.min_images} images, the most has "
            f"{max(counts.values(), default=0)}; add images, or ask for fewer with --min-images"
        )
    worker = _Worker(model, graph, channels, images.select(classes), out, how, options, on_progress)
    worker.begin()
    finished = {}
    for label in classes:
        done = worker.class_of(label)
        if done is not None and done.moments.n < how.min_images:  # some could not be read
            few[model.classes.names[label]] = done.moments.n
        elif done is not None:
            write_class(done, label, directory)
            finished[label] = (done.moments.n, len(done.keys), done.seen)
    if how.ranks.first and not finished:
        raise InputError(
            f"no class has {how.min_images} images that can be read; add images, or ask for fewer "
            "with --min-images"
        )
    unreadable = tuple(worker.unreadable)
    if not how.ranks.first:
        return Collection(None, unreadable, few)
    height, width = graph.input.shape[1:]
    statistics = Atlas(
        directory,
        model.name,
        model.weights_sha256,
        (height, width),
        tuple(channels.sites),
        {c: n for c, (n, _, _) in finished.items()},
        frozenset(digest.hex() for _, _, seen in finished.values() for digest in seen),
        {site: graph[site].shape for site in channels.sites},
    )
    atlas = MissionAtlas(
        statistics,
        model.preprocessing,
        model.classes,
        {c: samples for c, (_, samples, _) in finished.items()},
        how.samples,
        dict(sources or {}),
    )
    write_evidence(atlas)
    return Collection(atlas, unreadable, few)


def collect_model(
    model: Model,
    images: ImageSet,
    directory: Path,
    out: Path,
    how: Pass,
    options: Options,
    sources: Mapping[str, str | None] | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Collection:
    """As ``collect_atlas``, of a network as it was loaded, on the device that options name."""
    graph = capture_model(model)
    channels = analyse(graph)
    device = pick_device(options.device)
    if device.type == "cuda" and how.ranks.count > 1:
        device = torch.device("cuda", how.ranks.local % torch.cuda.device_count())
    return collect_atlas(
        model,
        graph.to(device),
        channels,
        images,
        directory,
        out,
        how,
        options,
        sources,
        on_progress,
    )


class _Worker:
    """This process's share of a pass."""

    def __init__(
        self,
        model: Model,
        graph: Graph,
        channels: Channels,
        images: ImageSet,
        out: Path,
        how: Pass,
        options: Options,
        on_progress: Progress,
    ) -> None:
        self.model, self.graph, self.channels, self.images = model, graph, channels, images
        self.how, self.options, self.on_progress = how, options, on_progress
        self.folder = out.resolve() / UNFINISHED
        self.unreadable: list[str] = []
        self.done, self.number = 0, 0
        self.parts = how.ranks.count
        self.has_room = how.ranks.count > 1

    def begin(self) -> None:
        """Find what is to be resumed, or make room; then all processes go on."""
        if self.how.ranks.first:
            if self.how.resume:
                self.parts = parts_kept(self.folder, self._settings())
                self.has_room = True
            elif self.how.ranks.count > 1:  # alone, with the first part
                self._make_room()
        self.parts = self.how.ranks.tell(self.parts)

    def _make_room(self) -> None:
        """The folder for parts, with nothing of an earlier pass in it."""
        if self.folder.is_dir():
            for path in (self.folder / INDEX, *self.folder.glob("*.safetensors")):
                path.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_parts_index(self.folder, self.parts, self._settings())
        self.has_room = True

    def _settings(self) -> dict[str, Any]:
        """All that parts depend on."""
        known: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "network": Path(self.model.name).name,
                    "weights": self.model.weights_sha256,
                    "preprocessing": asdict(self.model.preprocessing),
                    "images": files_digest(self.images),
                    "samples": self.how.samples,
                    "version": version("distillnet"),
                }
            )
        )
        return known

    def class_of(self, label: int) -> Gathered | None:
        """All that the images of a class gave, in the first process; None in others."""
        mine = self.images.select([label])
        total: Gathered | None = None
        for part in range(self.parts):
            self.number += 1
            if self.number % self.how.ranks.count != self.how.ranks.rank:
                continue
            refs = mine.refs[part :: self.parts]
            if not refs:
                continue
            done = self._part(label, part, replace(mine, refs=refs))
            self.done += len(refs)
            self.on_progress("collect", self.done, len(self.images))
            total = _joined(total, done, self.how.samples)
        return gather(self.how.ranks, total, self.graph, self.channels, self.how.samples)

    def _part(self, label: int, part: int, images: ImageSet) -> Gathered:
        path = self.folder / f"{label}-{part}.safetensors"
        if self.how.resume and (kept := read_part(path, self.graph, self.channels)) is not None:
            return kept
        gatherer, files = Gatherer(self.graph, self.channels, label, self.how.samples), OpenFiles()
        start = self.done

        def count(n: int) -> None:
            self.on_progress("collect", start + n, len(self.images))

        stream = self.options.batches(images, self.model.preprocessing, count)
        try:
            for batch in stream:
                digests = [image_digest(ref, files, images.max_pixels) for ref in batch.refs]
                gatherer.add(batch.x_nchw, [digest or b"\0" * 16 for digest in digests])
                gatherer.gathered.seen += [bytes.fromhex(key_digest(ref)) for ref in batch.refs]
        finally:
            files.close()
        self.unreadable += stream.unreadable
        if not self.has_room:
            self._make_room()
        write_part(gatherer.gathered, path)
        return gatherer.gathered


def _joined(total: Gathered | None, more: Gathered, samples: int) -> Gathered:
    if total is None:
        return more
    total.add(more, samples)
    return total
