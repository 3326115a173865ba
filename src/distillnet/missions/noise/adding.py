"""Atlases of noisy sums become one: means weigh by how many images they are of, as far as known.

Noise adds up, too: of K parts it is the root of K times as long. What each image is promised stays
what its own part promised, if no image is in two parts; that cannot be told, as there are no
digests of images. Of an image in several parts, rho adds up.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from pathlib import Path

from distillnet.atlas import Atlas, open_atlas, write_index
from distillnet.errors import InputError
from distillnet.missions.checks import check_alike
from distillnet.missions.noise.notes import NOISE, Noise, read_noise, write_heat, write_noise

__all__ = ["add_noisy"]


def add_noisy(folders: Sequence[Path], directory: Path) -> Atlas:
    """Write the sum of atlases with noise into an empty folder.

    Raises:
        InputError: one has no noise, or they are of different networks.
    """
    parts, notes = [open_atlas(folder) for folder in folders], _notes(folders)
    first = parts[0]
    for other in parts[1:]:
        check_alike(first.directory, other.directory, _made_of(first), _made_of(other))
    counts = {}
    for index in sorted({index for part in parts for index in part.counts}):
        mine = [part for part in parts if index in part.counts]
        total = sum(part.counts[index] for part in mine)
        heat = {}
        for site in first.sites:
            means = [part.counts[index] * part.heat(site, [index])[0].double() for part in mine]
            summed = sum(means[1:], means[0]) / total
            heat[site] = summed.flatten(1)[:, 0].float() if summed.ndim > 1 else summed.float()
        write_heat(heat, first.shapes, index, directory)
        counts[index] = total
    write_noise(
        Noise(
            max(note.epsilon for note in notes),
            max(note.delta for note in notes),
            max(note.rho for note in notes),
            sum(note.parts for note in notes),
            hypot(*(note.deviation for note in notes)),
        ),
        directory,
    )
    merged = replace(first, directory=directory, counts=counts, checked=set())
    write_index(merged, [NOISE])
    return merged


def _made_of(atlas: Atlas) -> dict[str, object]:
    """What atlases that add up have in common."""
    return {
        "model": atlas.model,
        "weights": atlas.weights_sha256,
        "input size": atlas.input_size,
        "layers": atlas.shapes,
    }


def _notes(folders: Sequence[Path]) -> list[Noise]:
    notes = []
    for folder in folders:
        note = read_noise(folder)
        if note is None:
            raise InputError(
                f"{folder} has no noise in it, and others of these have: their sum would be no "
                "more private than it is. Merge atlases that were all collected with --noise, or "
                "all without"
            )
        notes.append(note)
    return notes
