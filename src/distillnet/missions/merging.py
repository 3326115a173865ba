"""Atlases of disjoint images become one: what is summed adds up, of the samples the first stay."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distillnet.atlas import Moments
from distillnet.classes import ClassTable
from distillnet.errors import InputError
from distillnet.job.layout import relative_sources
from distillnet.missions.checks import check_alike, side_of
from distillnet.missions.files import (
    MissionAtlas,
    open_mission_atlas,
    write_class,
    write_evidence,
)
from distillnet.missions.gathering import Gathered

__all__ = ["gathered_of", "merge"]


def merge(atlases: Sequence[MissionAtlas | str | Path], directory: Path) -> MissionAtlas:
    """Write the atlas of all images and classes of some into an empty folder.

    It is the one that one pass over all of their images gives, to rounding: sums add up, and the
    samples of a class are chosen by their images alone (``rows``).

    Raises:
        InputError: they are of different networks, weights, preprocessing or numbers of samples, or
            share an image.
    """
    parts = [a if isinstance(a, MissionAtlas) else open_mission_atlas(a) for a in atlases]
    if len(parts) < 2:
        raise InputError(f"found {len(parts)} atlas to merge; expected two or more")
    first = parts[0]
    for other in parts[1:]:
        check_alike(first.directory, other.directory, _made_of(first), _made_of(other))
    counts, samples = {}, {}
    for index in sorted({index for part in parts for index in part.samples}):
        mine = [part for part in parts if index in part.samples]
        _check_apart(index, mine)
        total = gathered_of(mine[0], index)
        for part in mine[1:]:
            more = gathered_of(part, index)
            _check_shapes(index, total, more, part.directory)
            total.add(more, first.most_samples)
        write_class(total, index, directory)
        counts[index], samples[index] = total.moments.n, len(total.keys)
    merged = replace(
        first,
        statistics=replace(
            first.statistics,
            directory=directory,
            counts=counts,
            images=frozenset().union(*(part.statistics.images for part in parts)),
            checked=set(),
        ),
        classes=_all_names(parts),
        samples=samples,
        sources=relative_sources(first.sources, directory),  # opened, they are whole paths
        image_of={},
    )
    write_evidence(merged)
    return merged


def gathered_of(atlas: MissionAtlas, index: int) -> Gathered:
    """What the images of a class gave, as an atlas has it."""
    statistics, n = atlas.statistics, atlas.statistics.counts[index]
    moments = Moments.of(
        n,
        {site: statistics.heat(site, [index])[0] for site in statistics.sites},
        {site: statistics.variance(site, [index])[0] for site in statistics.sites},
    )
    tensors = atlas.tensors(index)
    needs = {
        name.removeprefix("need/"): _square(half) * n
        for name, half in tensors.items()
        if name.startswith("need/")
    }
    rows = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("need/") and name not in ("keys", "images")
    }
    images = list(map(bytes, tensors["images"].numpy()))
    return Gathered(moments, needs, tensors["keys"], rows, images)


def _square(half: Tensor) -> Tensor:
    """The symmetric matrix (M, M) float64 of its upper half."""
    size = side_of(len(half))
    rows, columns = torch.triu_indices(size, size)
    square = torch.zeros(size, size, dtype=torch.float64)
    square[rows, columns] = square[columns, rows] = half.double()
    return square


def _made_of(atlas: MissionAtlas) -> dict[str, object]:
    """What atlases that add up have in common."""
    return {
        "model": atlas.statistics.model,
        "weights": atlas.statistics.weights_sha256,
        "preprocessing": atlas.preprocessing,
        "layers": atlas.statistics.shapes,
        "--samples": atlas.most_samples,
        "number of classes": len(atlas.classes),
    }


def _check_shapes(index: int, total: Gathered, more: Gathered, directory: Path) -> None:
    """Raise InputError where an atlas holds other layers of a class than those before it."""
    expected, found = (
        {name: tuple(t.shape[1:]) for name, t in (*g.rows.items(), *g.needs.items())}
        for g in (total, more)
    )
    if found != expected:
        other = sorted(dict(expected.items() ^ found.items()))[0]
        raise InputError(
            f"{directory} holds {found.get(other, 'nothing')} as {other!r} of class {index}; the "
            f"atlases before it {expected.get(other, 'nothing')}. Collect it again"
        )


def _check_apart(index: int, parts: Sequence[MissionAtlas]) -> None:
    """Raise InputError where two atlases counted an image."""
    seen: dict[bytes, Path] = {}
    for part in parts:
        for digest in part.images(index):
            if digest in seen:
                raise InputError(
                    f"{part.directory} and {seen[digest]} were both made of one image of class "
                    f"{index}, which would count twice; expected atlases of different images"
                )
        seen |= dict.fromkeys(part.images(index), part.directory)


def _all_names(parts: Sequence[MissionAtlas]) -> ClassTable:
    """The names that each atlas has for its classes."""
    table = parts[0].classes
    names, aliases = list(table.names), list(table.aliases)
    for part in reversed(parts):
        for index in part.samples:
            names[index], aliases[index] = part.classes.names[index], part.classes.aliases[index]
    return ClassTable(tuple(names), tuple(aliases))
