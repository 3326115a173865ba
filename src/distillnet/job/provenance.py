"""Which images a run was made of, told by their content: what it has seen, and what was held out.

``images.safetensors`` in a run folder holds a digest of each image for each part, ``statistics``,
``search`` and ``val``: uint8 (N, 16), in order of the digests. So images are known again wherever
they were moved to, and a run tells nothing of where they lay.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from distillnet.classes import ClassTable, Mission
from distillnet.errors import ImageError, InputError
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.files.tensors import read_tensors, write_tensors
from distillnet.images import MAX_PIXELS, ImageRef, ImageSet, OpenFiles, image_digest, open_images
from distillnet.job.partition import Images

__all__ = [
    "PROVENANCE",
    "Provenance",
    "digests",
    "held_out",
    "provenance_of",
    "read_provenance",
    "write_provenance",
]

PROVENANCE = "images.safetensors"
_BYTES = 16
_PARTS = ("statistics", "search", "val")


@dataclass(frozen=True)
class Provenance:
    """Digests of the images of each part: copies of one image are one."""

    statistics: frozenset[bytes]
    search: frozenset[bytes]
    val: frozenset[bytes]

    @property
    def made_of(self) -> frozenset[bytes]:
        """All but those that only the figures are of."""
        return self.statistics | self.search

    def seen(self, images: ImageSet) -> int:
        """How many of some images the network was made of."""
        return sum(digest in self.made_of for digest in digests(images))


def digests(images: ImageSet) -> list[bytes | None]:
    """A digest of each image's content; None of those that cannot be read."""
    files = OpenFiles()
    try:
        return [image_digest(ref, files, images.max_pixels) for ref in images.refs]
    finally:
        files.close()


def provenance_of(images: Images) -> Provenance:
    """Digests of all images that can be read."""
    parts = (digests(part) for part in (images.statistics, images.search, images.val))
    return Provenance(*(frozenset(d for d in part if d is not None) for part in parts))


def write_provenance(known: Provenance, directory: Path) -> None:
    """Note which images a run in ``directory`` is made of."""
    tensors = {}
    for part in _PARTS:
        rows = [list(digest) for digest in sorted(getattr(known, part))]
        tensors[part] = torch.tensor(rows, dtype=torch.uint8).reshape(-1, _BYTES)
    write_tensors(tensors, directory / PROVENANCE)


def read_provenance(directory: Path) -> Provenance | None:
    """What a run notes of its images; None of a run that is older than such notes."""
    path = directory / PROVENANCE
    if not path.exists():
        return None
    check_sealed(directory, read_manifest(directory), [PROVENANCE])
    try:
        tensors = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); distill again") from error
    parts = {}
    for name in _PARTS:
        rows = tensors.get(name)
        if rows is None or rows.dtype != torch.uint8 or rows.shape[1:] != (_BYTES,):
            raise InputError(
                f"{path} has no digests of the {name} images, uint8 (N, {_BYTES}); distill again"
            )
        parts[name] = frozenset(map(bytes, rows.numpy()))
    return Provenance(**parts)


def held_out(
    directory: Path,
    source: str | None,
    classes: ClassTable,
    mission: Mission,
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[ImageSet, int]:
    """The images that the figures of a run are of, found again; and how many are gone.

    Args:
        directory: the run.
        source: the folder of images that it was made of, of which some were held out.

    Raises:
        ImageError: the run does not tell which they were, or none of them lies where it did.
    """
    known = read_provenance(directory)
    if known is None or source is None or not Path(source).is_dir():
        where = "are not where they were" if known and source else "are not recorded there"
        raise ImageError(
            f"the images behind the figures of {directory} {where}; pass images with --data"
        )
    folders = open_images(source, classes, mission.indices, max_pixels=max_pixels)
    found: dict[bytes, ImageRef] = {}
    for images in (folders.val, folders.train):
        for ref, digest in zip(images.refs, digests(images), strict=True) if images else ():
            if digest is not None and digest in known.val:
                found.setdefault(digest, ref)
    if not found:
        raise ImageError(
            f"none of the {len(known.val)} images behind the figures of {directory} is in "
            f"{source} any more; pass images with --data"
        )
    images = ImageSet(tuple(found.values()), max_pixels).select(mission.indices)
    return images, len(known.val) - len(found)
