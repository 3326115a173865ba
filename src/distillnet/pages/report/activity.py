"""Neuroactivity (the paper's Figures 3, 4 and 7): what neurons give, and which of them are kept.

What shows an image, its feature maps and what is projected back from them, is made only where
images may be shown: the first layers' maps are the image once more.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillnet.graph import fast_layout, run
from distillnet.images import ImageRef, ImageSet, UnreadableImage, load_all, read_image
from distillnet.pages.answers import label_of
from distillnet.pages.pictures import bitmap_tiles, colour, png, thumbnail, tiles
from distillnet.pages.report.figures import histogram
from distillnet.pages.report.looking import looked_at
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Original, Subject

__all__ = ["activity"]

_CLASSES = 6  # shown of each layer
_IMAGES = 16  # whose feature maps are counted
_VALUES = 100_000  # of a layer that are counted
_MAPS, _COLUMNS, _SIDE = 9, 3, 56
_THUMBNAIL = 224  # pixels

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Picture:
    name: str
    data: str


@dataclass(frozen=True)
class _Place:
    """One site: charts are SVG, pictures ``data:`` addresses; empty where there is none."""

    name: str
    figures: Mapping[str, Any]
    heat_chart: str
    map_chart: str
    heat: tuple[_Picture, ...]
    bitmaps: tuple[_Picture, ...]
    maps: str
    looks_at: str
    channel: int | None


def activity(
    subject: Subject,
    commands: Mapping[str, str],
    *,
    with_images: bool,
    on_progress: Progress,
) -> tuple[Section | None, tuple[Absent, ...]]:
    """The section, if there is anything to show in it, and what it lacks.

    Args:
        commands: what adds ``atlas``, ``original``, ``images``, ``with_images``.
        with_images: whether pictures may show an image.
    """
    absent: list[Absent] = []
    if subject.atlas is None:
        why = subject.lacks.get("atlas", "")
        absent.append(Absent("Heatmaps of the classes", why, commands["atlas"]))
    original = subject.original if subject.original and subject.original.own_weights else None
    counted: dict[str, Tensor] = {}
    sample: _Sample | None = None
    if original is None or subject.images is None:
        name = "images" if subject.images is None else "original"
        why = subject.lacks.get(name) or subject.lacks.get("weights", "")
        absent.append(Absent("Values of feature maps", why, commands["original"]))
    else:
        counted = _counted(original, subject.images)
        if with_images:
            sample = _sampled(original, subject.images, tuple(counted), on_progress, absent)
        else:
            absent.append(
                Absent(
                    "Feature maps of an image, and what each layer looks at",
                    "they show the image, and images are embedded only if you ask for it",
                    commands["with_images"],
                )
            )
    reports = subject.result["layers"]
    places = [
        _place(i, report, subject, counted.get(report["site"]), sample)
        for i, report in enumerate(reports)
    ]
    if not places:
        why = "the run was made from an atlas, which no search went through layer by layer"
        return None, (Absent("Neuroactivity", why, commands["atlas"]),)
    values = {
        "places": places,
        "sample": sample,
        "per_class_bitmaps": bool(subject.class_keep),
        "n_counted": min(_IMAGES, len(subject.images)) if subject.images else 0,
        "n_classes": len(subject.run.mission),
        "n_shown": min(_CLASSES, len(subject.run.mission)),
        "size": subject.result["distilled"]["input_size"],
    }
    return Section("activity", "Neuroactivity", values), tuple(absent)


def _place(
    i: int,
    report: Mapping[str, Any],
    subject: Subject,
    values: Tensor | None,
    sample: "_Sample | None",
) -> _Place:
    site, threshold = report["site"], report["threshold"]
    indices = subject.run.mission.indices[:_CLASSES]
    names = subject.run.mission.names
    heat_chart = ""
    heat: tuple[_Picture, ...] = ()
    atlas = subject.atlas
    if atlas is not None and site in atlas.sites:
        heat_k = atlas.heat(site, subject.run.mission.indices)
        heat_chart = histogram(heat_k, threshold, f"h{i}", "mean of a neuron over a class")
        if heat_k.ndim == 4:
            maps = heat_k.mean(1)
            heat = tuple(
                _Picture(name, png(colour(one, float(maps.max()))))
                for name, one in zip(names, maps[: len(indices)], strict=False)
            )
    map_chart = ""
    if values is not None:
        map_chart = histogram(values, threshold, f"m{i}", "value of a feature map")
    keep = subject.keep.get(site)
    bitmaps = []
    if keep is not None:
        bitmaps.append(_Picture("fused", png(bitmap_tiles(keep))))
    for name, index in zip(names, indices, strict=False):
        own = subject.class_keep.get(index, {}).get(site)
        if own is not None:
            bitmaps.append(_Picture(name, png(bitmap_tiles(own))))
    return _Place(
        site,
        report,
        heat_chart,
        map_chart,
        heat,
        tuple(bitmaps),
        sample.maps.get(site, "") if sample else "",
        sample.looks_at.get(site, "") if sample else "",
        sample.channels.get(site) if sample else None,
    )


def _counted(original: Original, images: ImageSet) -> dict[str, Tensor]:
    """Some values of each site's feature maps, on a few images of all classes."""
    some = _spread(images, _IMAGES)
    x = load_all(some, _how(original), max_unreadable_percent=100).x_nchw
    values: dict[str, Tensor] = {}

    def keep(name: str, y: Tensor) -> None:
        if name in original.channels.sites:
            flat = y.contiguous().flatten()
            values[name] = flat[:: max(1, len(flat) // _VALUES)].clone()

    with torch.inference_mode():
        run(original.graph, {original.graph.input.name: fast_layout(x)}, observe=keep)
    return values


def _spread(images: ImageSet, n: int) -> ImageSet:
    """About ``n`` images, evenly out of all, which are sorted by class."""
    step = max(1, len(images) // n)
    return ImageSet(images.refs[::step][:n], images.max_pixels)


def _how(original: Original) -> Any:
    height, width = original.graph.input.shape[1:]
    return original.model.preprocessing.with_input_size((height, width))


@dataclass(frozen=True)
class _Sample:
    """Feature maps of one image by site, and its strongest channel projected back to pixels."""

    name: str
    picture: str
    maps: Mapping[str, str]
    looks_at: Mapping[str, str]
    channels: Mapping[str, int]


def _first_readable(images: ImageSet) -> ImageRef:
    """ImageError where none of them is; what cannot be read is counted elsewhere."""
    for ref in images.refs[:-1]:
        with suppress(UnreadableImage):
            read_image(ref, max_pixels=images.max_pixels)
            return ref
    return images.refs[-1]


def _sampled(
    original: Original,
    images: ImageSet,
    sites: tuple[str, ...],
    on_progress: Progress,
    absent: list[Absent],
) -> _Sample:
    ref = _first_readable(images)
    x = load_all(ImageSet((ref,), images.max_pixels), _how(original)).x_nchw
    maps: dict[str, str] = {}
    strongest: dict[str, int] = {}

    def keep(name: str, y: Tensor) -> None:
        if name in sites and y.ndim == 4:
            strength = y[0].flatten(1).mean(1)
            order = strength.argsort(descending=True)[:_MAPS]
            maps[name] = png(tiles(y[0][order], _COLUMNS, _SIDE))
            strongest[name] = int(y[0].flatten(1).amax(1).argmax())

    with torch.inference_mode():
        run(original.graph, {original.graph.input.name: fast_layout(x)}, observe=keep)
    looks_at = looked_at(original, x, strongest, on_progress, absent)
    return _Sample(
        label_of(ref),
        thumbnail(read_image(ref, max_pixels=images.max_pixels), _THUMBNAIL),
        maps,
        looks_at,
        strongest,
    )
