"""Images of what is none of the mission's classes: any folders, whatever they are called."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distillnet.classes import ClassTable, Mission, numbered_table
from distillnet.errors import ImageError
from distillnet.images import MAX_PIXELS, ImageSet, class_folders, open_images
from distillnet.job.provenance import digests

__all__ = ["Strangers", "open_strangers", "without"]


@dataclass(frozen=True)
class Strangers:
    """Images to fit a rule on and, where they are kept apart, images to report on.

    ``names`` are those of the folders, by the label of the images in them; ``val`` is that of
    ``val/`` or ``test/`` beside ``train/``.
    """

    names: tuple[str, ...]
    train: ImageSet
    val: ImageSet | None

    @property
    def report(self) -> ImageSet:
        """The images to report on: those kept apart where there are some, else all."""
        return self.val or self.train


def open_strangers(
    directory: str | Path, table: ClassTable, mission: Mission, *, max_pixels: int = MAX_PIXELS
) -> Strangers:
    """All images in the folders of ``directory`` but those that are named as the mission's classes.

    The layouts are those of ``images.open_images``; names need not be those of any class.

    Args:
        table: of the network's classes, by which the mission's folders are known.

    Raises:
        ImageError: there are no such folders with images in them.
    """
    known = mission.named(table)
    of_mission = set(mission.indices)
    every = class_folders(directory, numbered_table(2))
    names = [name for name in every if of_mission.isdisjoint(known.matches(name))]
    if not names:
        found = "only folders of the mission's classes" if every else "no folders with images"
        raise ImageError(
            f"{directory} holds {found}; expected folders of images of anything else, such as "
            "DIR/empty scene/1.jpg"
        )
    own = _table(names, every)
    labels = [i for i, name in enumerate(own.names) if name in set(names)]
    folders = open_images(directory, own, labels, max_pixels=max_pixels)
    return Strangers(own.names, folders.train, folders.val)


def without(images: ImageSet, left_out: Container[bytes | None]) -> ImageSet:
    """Images but those of these digests, wherever they lie."""
    each = zip(images.refs, digests(images), strict=True)
    return replace(images, refs=tuple(ref for ref, digest in each if digest not in left_out))


def _table(names: Sequence[str], every: Sequence[str]) -> ClassTable:
    """A class for each of ``names``; none of them, and no other folder's name, names another.

    A folder called by a number has that index, for every class also goes by its index.
    """
    numbers = {int(name): name for name in every if name.isdecimal() and len(name) < 7}
    others = iter([name for name in names if name not in numbers.values()])
    size = max(len(names) + len(numbers), *(n + 1 for n in (0, *numbers)))
    filled = [numbers[i] if i in numbers else next(others, "") for i in range(size)]
    return ClassTable(
        tuple(name if name in set(names) else f"\0{i}" for i, name in enumerate(filled)),
        tuple(() for _ in filled),
    )
