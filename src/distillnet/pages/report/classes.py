"""The section of classes: confusion before and after, images that changed, what classes share."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillnet.images import ImageRef, ImageSet, UnreadableImage, read_image
from distillnet.job.provenance import read_provenance
from distillnet.pages.answers import Answers, ask, confusion, label_of
from distillnet.pages.pictures import thumbnail
from distillnet.pages.report.figures import class_bars
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Subject

__all__ = ["classes", "overlap"]

_CHANGED = 24  # images that are listed, of each kind
_SAMPLES = 4  # images of each class
_SIDE = 112  # pixels
_MOST = 30  # classes of a matrix
_TOP = 0.25  # of the neurons that are kept

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Changed:
    """One image that both networks do not agree on."""

    label: str
    truth: str
    before: str
    after: str
    sure: float
    picture: str


def classes(
    subject: Subject,
    commands: Mapping[str, str],
    *,
    with_images: bool,
    on_progress: Progress,
) -> tuple[Section, tuple[Absent, ...]]:
    """The section and what it lacks; it asks both networks about all images at hand."""
    absent: list[Absent] = []
    result, names = subject.result, subject.run.mission.names
    per_class = {
        name: (result["baseline"]["per_class"][name], result["distilled"]["per_class"][name])
        for name in names
    }
    values: dict[str, Any] = {
        "names": names,
        "chart": class_bars(per_class) if len(names) <= _MOST else "",
        "per_class": per_class,
        "matrices": (),
        "changed": None,
        "samples": (),
        "n": 0,
        "n_seen": 0,
        "overlap": None,
        "by_bitmaps": bool(subject.class_keep),
    }
    if subject.images is None:
        why = subject.lacks.get("images", "")
        absent.append(Absent("Confusion of classes", why, commands["images"]))
    else:
        images = subject.images
        before, after = ask(subject, images, on_progress)
        values["n"] = len(after.refs)
        known = read_provenance(subject.run.directory)
        values["n_seen"] = known.seen(images) if known else None
        if len(names) <= _MOST:
            values["matrices"] = _matrices(before, after, len(names))
        if before is None:
            why = subject.lacks.get("original") or subject.lacks.get("weights", "")
            title = "Confusion before, and images that changed"
            absent.append(Absent(title, why, commands["original"]))
        else:
            values["changed"] = _changes(before, after, names, images, with_images)
        if with_images:
            values["samples"] = _samples(images, subject)
        else:
            why = "images are embedded only if you ask for it"
            absent.append(Absent("Sample images", why, commands["with_images"]))
    if len(names) <= _MOST:
        values["overlap"] = overlap(subject)
    return Section("classes", "Classes", values), tuple(absent)


def _matrices(
    before: Answers | None, after: Answers, n_classes: int
) -> tuple[tuple[str, list[list[int]]], ...]:
    made = [("Distilled", confusion(after, n_classes).tolist())]
    if before is not None:
        made.insert(0, ("Original", confusion(before, n_classes).tolist()))
    return tuple(made)


def _changes(
    before: Answers, after: Answers, names: tuple[str, ...], images: ImageSet, with_images: bool
) -> dict[str, Any]:
    """Images that were right and became wrong, and those that became right."""
    then = {ref: i for i, ref in enumerate(before.refs)}
    lost: list[_Changed] = []
    won: list[_Changed] = []
    other = 0
    for i, ref in enumerate(after.refs):
        if ref not in then:
            continue
        was, now = int(before.answers_n[then[ref]]), int(after.answers_n[i])
        truth = int(after.labels_n[i])
        if was == now:
            continue
        if truth not in (was, now):
            other += 1
            continue
        picture = _picture(ref, images) if with_images else ""
        changed = _Changed(
            label_of(ref), names[truth], names[was], names[now], float(after.sure_n[i]), picture
        )
        (lost if was == truth else won).append(changed)
    return {
        "lost": lost[:_CHANGED],
        "won": won[:_CHANGED],
        "n_lost": len(lost),
        "n_won": len(won),
        "n_other": other,
    }


def _picture(ref: ImageRef, images: ImageSet) -> str:
    return thumbnail(read_image(ref, max_pixels=images.max_pixels), _SIDE)


def _samples(images: ImageSet, subject: Subject) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    """A few images of each class, evenly out of all: (class, [(label, picture)])."""
    made = []
    for index, name in zip(subject.run.mission.indices, subject.run.mission.names, strict=True):
        refs = images.select([index]).refs
        pictures = []
        for ref in refs[:: max(1, len(refs) // _SAMPLES)][:_SAMPLES]:
            with suppress(UnreadableImage):  # it is counted elsewhere
                pictures.append((label_of(ref), _picture(ref, images)))
        made.append((name, pictures))
    return tuple(made[:_MOST])


def overlap(subject: Subject) -> list[list[float]] | None:
    """What each two classes share of the neurons that either needs (Jaccard), from 0 to 1: (K, K).

    By the classes' bitmaps where there are any. Where the search looked at the mission as a whole,
    a class is given the most active quarter of each layer's kept channels, by its heatmaps; None
    without those. By chance two such quarters share a seventh.
    """
    k, indices = len(subject.run.mission), subject.run.mission.indices
    both, either = torch.zeros(k, k, dtype=torch.int64), torch.zeros(k, k, dtype=torch.int64)
    for bits_kf in _needed(subject, indices):
        wide = bits_kf.long()
        common, counts = wide @ wide.T, wide.sum(1)
        both += common
        either += counts[:, None] + counts[None, :] - common
    if not bool(either.any()):
        return None
    shares: list[list[float]] = (both / either.clamp_min(1)).tolist()
    return shares


def _needed(subject: Subject, indices: tuple[int, ...]) -> list[Tensor]:
    """By site which neurons or channels each class needs: bool (K, F)."""
    if subject.class_keep:
        sites = next(iter(subject.class_keep.values()))
        return [
            torch.stack([subject.class_keep[index][site].flatten() for index in indices])
            for site in sites
            if all(site in subject.class_keep.get(index, {}) for index in indices)
        ]
    atlas = subject.atlas
    if atlas is None:
        return []
    needed = []
    for site in atlas.sites:
        heat = atlas.heat(site, indices)
        heat = heat.reshape(*heat.shape[:2], -1).mean(2)
        keep = subject.keep.get(site)
        if keep is not None and len(keep) == heat.shape[1]:
            heat = heat[:, keep.reshape(len(keep), -1).any(1)]
        if heat.shape[1] > 1:
            n = max(1, round(_TOP * heat.shape[1]))
            least = heat.topk(n, 1).values[:, -1:]
            needed.append(heat >= least)
    return needed
