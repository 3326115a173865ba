"""Who sees which image: statistics, search and report never share one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from distillnet.atlas import Atlas
from distillnet.errors import ImageError, InputError
from distillnet.images import Folders, ImageRef, ImageSet, read_image, split
from distillnet.images.keys import image_key

__all__ = ["Images", "split_images"]

_FEW = 3  # images of a class in a part, which may all be damaged


@dataclass(frozen=True, repr=False)
class Images:
    """Three sets without a common image: what is measured, searched on, and reported on.

    ``alike``: statistics and search are parts of one set, so that all may fit and judge.
    ``left_out``: images of a kind that is not read, as ``Folders`` counts them.
    """

    statistics: ImageSet
    search: ImageSet
    val: ImageSet
    alike: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = (len(self.statistics), len(self.search), len(self.val))
        return "<Images: {:,} for statistics, {:,} to search on, {:,} held out>".format(*parts)


def split_images(
    folders: Folders,
    *,
    val: ImageSet | None = None,
    search: ImageSet | None = None,
    atlas: Atlas | None = None,
    seed: int = 0,
) -> Images:
    """Statistics, search and val images without overlap.

    ``val`` is what is given, else the folder's own, else a fifth of each class. ``search`` is what
    is given, else half of the rest: the search decides on single errors and needs the images more
    than the means do. With an ``atlas``, statistics are of its images, and the others of others.

    Raises:
        InputError: a set would have no readable image of some class, or two sets share an image.
    """
    rest, alike = folders.train, search is None and atlas is None
    if val is None:
        val = folders.val
    if val is None:
        known = [ref for ref in rest.refs if atlas is not None and atlas.has_seen(ref)]
        others = [ref for ref in rest.refs if atlas is None or not atlas.has_seen(ref)]
        val, left = split(replace(rest, refs=tuple(others)), 0.2, seed)
        rest = replace(rest, refs=(*known, *left.refs))
    if atlas is not None:
        if search is None:
            unseen = (ref for ref in rest.refs if not atlas.has_seen(ref))
            search = replace(rest, refs=tuple(unseen))
        everything = (ref for part in (rest, val, search) for ref in part.refs)
        seen = {ref: None for ref in everything if atlas.has_seen(ref)}
        statistics = replace(rest, refs=tuple(seen))
    elif search is None:
        statistics, search = split(rest, 0.5, seed)
    else:
        statistics = rest
    parts = (("statistics", statistics), ("search", search), ("val", val))
    # Not by the references, in which one file may have several names.
    keys = {name: {image_key(ref) for ref in part.refs} for name, part in parts}
    labels = sorted({ref.label for _, part in parts for ref in part.refs})
    for name, part in parts:
        missing = set(labels) - set(part.counts())
        if missing and not (name == "statistics" and atlas is not None):
            first = min(missing)
            if atlas is not None and name == "search":
                raise ImageError(
                    f"the atlas {atlas.directory} was made of all images of class {first}, which "
                    "leaves none to search on; pass others with --search, or collect from a part"
                )
            raise ImageError(
                f"class {first} has {folders.train.counts().get(first, 0)} images, which leaves "
                f"none for the {name} set; expected at least one of each class for each of "
                "statistics, search and val. Add images, or pass others with --search and --val"
            )
        _check_readable(name, part)
        for other in keys:
            if name < other and (common := keys[name] & keys[other]):
                raise InputError(
                    f"{len(common)} images are in both the {name} and the {other} set, such as "
                    f"{min(common)}; expected separate images, correct --search and --val"
                )
    return Images(statistics, search, val, alike, folders.left_out)


def _check_readable(name: str, images: ImageSet) -> None:
    """Refuse a class of which nothing can be read now, where it has few images, not in the end."""
    by_label: dict[int, list[ImageRef]] = {}
    for ref in images.refs:
        by_label.setdefault(ref.label, []).append(ref)
    for label, refs in by_label.items():
        if len(refs) <= _FEW and not any(_is_readable(ref, images.max_pixels) for ref in refs):
            raise ImageError(
                f"no {name} image of class {label} can be read, such as {refs[0]}; replace or "
                "remove damaged files, or add images"
            )


def _is_readable(ref: ImageRef, max_pixels: int) -> bool:
    try:
        read_image(ref, max_pixels=max_pixels)
    except ImageError:
        return False
    return True
