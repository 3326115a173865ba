"""Which images there are of which classes, and parts of them."""

import os
import random
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from distillnet.classes import ClassTable, Mission
from distillnet.errors import ImageError, InputError, as_path, expect
from distillnet.images.files import ImageRef, read_idx
from distillnet.images.left_out import MAX_PIXELS, OTHER_SUFFIXES, described
from distillnet.images.missing import shortened, what_is_missing

__all__ = ["Folders", "ImageSet", "class_folders", "limit", "open_images", "split"]

_SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_IDX_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class ImageSet:
    """Images sorted by class, in the order the classes were asked for, then by path.

    One that has more than ``max_pixels`` counts as unreadable.
    """

    refs: tuple[ImageRef, ...] = field(repr=False)
    max_pixels: int = MAX_PIXELS

    def __repr__(self) -> str:
        counts = self.counts()
        some = ", ".join(f"{label}: {n}" for label, n in list(counts.items())[:8])
        more = ", ..." if len(counts) > 8 else ""
        return f"<ImageSet of {len(self):,} images, by class {{{some}{more}}}>"

    def __len__(self) -> int:
        return len(self.refs)

    def counts(self) -> dict[int, int]:
        """How many images each class has, in the order of the classes."""
        return dict(Counter(ref.label for ref in self.refs))

    def select(self, classes: Sequence[int]) -> "ImageSet":
        """The images of ``classes``, in that order; a class without images adds none."""
        return replace(self, refs=_sorted_set(self.refs, classes).refs)


@dataclass(frozen=True)
class Folders:
    """What a directory holds: images to learn from and, if kept apart, images to validate on.

    ``left_out`` counts, by the suffix of their names, files of the same classes that are images
    of a kind that is not read.
    """

    train: ImageSet
    val: ImageSet | None
    left_out: Mapping[str, int] = field(default_factory=dict)


def open_images(
    directory: str | Path,
    table: ClassTable,
    classes: Mission | Sequence[int] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Folders:
    """Find the images of ``classes`` (None: of all classes there are) in ``directory``.

    Understood are ``<class>/<image>`` with nested folders; ``train/`` and ``val/`` or ``test/``
    of that form; ``train.zip`` and ``val.zip`` or ``test.zip`` of that form; and the IDX files of
    MNIST, uncompressed, as torchvision lays them out. Classes are named as in ``table``, those of a
    mission also by the names that it gives them; folders of other classes are ignored, and several
    folders of one class are merged. ImageError if a class has no images, or if a folder's name fits
    several classes of which one is wanted.
    """
    directory = _checked(directory)
    expect(table, ClassTable, "the classes", "a class table, such as model.classes")
    if isinstance(classes, Mission):
        table, classes = classes.named(table), classes.indices
    try:
        sets = [_image_set(source, table, classes) for source in _sources(directory, table)]
    except OSError as error:
        raise _not_readable(directory, error) from error
    train, *val = (replace(images, max_pixels=max_pixels) for images, _ in sets)
    left_out = sum((others for _, others in sets), Counter())
    return Folders(train, val[0] if val else None, dict(sorted(left_out.items())))


def class_folders(directory: str | Path, table: ClassTable) -> tuple[str, ...]:
    """The names of all folders that ought to hold the images of a class, whether it exists or not.

    In ``directory`` or in its ``train/`` (see ``open_images``), sorted; folders without images are
    left out.
    """
    directory = _checked(directory)
    try:
        return _names_with_images(_sources(directory, table)[0], table)
    except OSError as error:
        raise _not_readable(directory, error) from error


def _checked(directory: str | Path) -> Path:
    directory = as_path(directory, "the folder of images")
    if not directory.is_dir():
        found = "is not a folder" if directory.exists() else "does not exist"
        raise ImageError(f"{directory} {found}; expected a folder with one folder per class in it")
    return directory


def _not_readable(directory: Path, error: OSError) -> ImageError:
    return ImageError(
        f"{error.filename or directory} cannot be read ({error.strerror}); expected a folder "
        "of images that this user may read"
    )


def split(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Two disjoint parts; of each class's n images the first has round(fraction * n).

    Neither part lacks a class that has at least two images. What is drawn of a class depends on
    its images and the seed, not on the other classes.
    """
    if not 0 < fraction < 1:
        raise InputError(f"cannot split images by the fraction {fraction}; expected 0 < it < 1")
    first: set[ImageRef] = set()
    for refs in _shuffled(images, seed):
        n = round(fraction * len(refs))
        first.update(refs[: min(max(n, 1), len(refs) - 1) if len(refs) > 1 else n])
    return (
        replace(images, refs=tuple(ref for ref in images.refs if ref in first)),
        replace(images, refs=tuple(ref for ref in images.refs if ref not in first)),
    )


def limit(images: ImageSet, per_class: int, seed: int) -> ImageSet:
    """At most ``per_class`` images of each class; a higher limit only adds images."""
    if per_class < 1:
        raise InputError(f"cannot take {per_class} images per class; expected at least 1")
    kept = {ref for refs in _shuffled(images, seed) for ref in refs[:per_class]}
    return replace(images, refs=tuple(ref for ref in images.refs if ref in kept))


def _shuffled(images: ImageSet, seed: int) -> Iterator[list[ImageRef]]:
    by_label: dict[int, list[ImageRef]] = {}
    for ref in images.refs:
        by_label.setdefault(ref.label, []).append(ref)
    for label, refs in by_label.items():
        random.Random(f"{seed}/{label}").shuffle(refs)
        yield refs


def _sorted_set(refs: Iterable[ImageRef], classes: Sequence[int]) -> ImageSet:
    rank = {label: position for position, label in enumerate(classes)}
    chosen = [ref for ref in refs if ref.label in rank]
    # as_posix: the same order on every system. Nothing of the mission's names enters it.
    chosen.sort(key=lambda r: (rank[r.label], r.path.as_posix(), r.member or "", r.index or 0))
    return ImageSet(tuple(chosen))


# Finding images -----------------------------------------------------------------------------


def _sources(directory: Path, table: ClassTable) -> list[Path]:
    """Where the images to learn from are and, if kept apart, those to validate on.

    A source is a folder of class folders, a zip of them, or a file of IDX images.
    """
    for suffix, is_source in (("", Path.is_dir), (".zip", Path.is_file)):
        train = directory / f"train{suffix}"
        kept_apart = [directory / f"{name}{suffix}" for name in ("val", "test")]
        kept_apart = [path for path in kept_apart if is_source(path)][:1]
        # "train" alone may be the folder of a class: CIFAR-100 has trains.
        if is_source(train) and (kept_apart or suffix or not table.matches("train")):
            return [train, *kept_apart]
    for raw in (directory / "MNIST" / "raw", directory / "raw", directory):
        if (raw / _IDX_TRAIN[0]).exists():
            sources = [raw / _IDX_TRAIN[0], raw / _IDX_TEST[0]]
            return [path for path in sources if path.exists()]
    return [directory]


@dataclass(frozen=True)
class _Found:
    """The images in a source, and the names of all folders in which there might have been some.

    ``others`` are the classes and suffixes of images that are not read.
    """

    refs: list[ImageRef]
    names: list[str]
    others: list[tuple[int, str]] = field(default_factory=list)


def _find(source: Path, table: ClassTable, classes: Sequence[int] | None) -> _Found:
    if source.is_dir():
        return _find_in_folder(source, table, classes)
    if source.suffix == ".zip":
        return _find_in_zip(source, table, classes)
    return _find_in_idx(source, table)


def _names_with_images(source: Path, table: ClassTable) -> tuple[str, ...]:
    if source.is_dir():
        return tuple(name for name in _folder_names(source) if any(_image_files(source / name)))
    if source.suffix == ".zip":
        found = {path[0] for path in _zip_members(source).values() if _is_zipped_image(path)}
        return tuple(sorted(found))
    return tuple(_find_in_idx(source, table).names)


def _folder_names(source: Path) -> list[str]:
    return sorted(path.name for path in source.iterdir() if _visible(path.name) and path.is_dir())


def _find_in_folder(source: Path, table: ClassTable, classes: Sequence[int] | None) -> _Found:
    refs: list[ImageRef] = []
    others: list[tuple[int, str]] = []
    names = _folder_names(source)
    for name in names:
        label = _wanted_label(name, source, table, classes)
        for path in _image_files(source / name) if label is not None else ():
            assert label is not None
            if _suffix(path.name) in _SUFFIXES:
                refs.append(ImageRef(path, label))
            else:
                others.append((label, _suffix(path.name)))
    return _Found(refs, names, others)


def _image_files(folder: Path) -> Iterator[Path]:
    # Data sets are often assembled of symbolic links, which may lead in circles.
    # One that leads upwards leads out of the class.
    visited = {str(path) for path in Path(os.path.realpath(folder)).parents}
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        folders.sort()  # where two names lead to one folder, the same of them everywhere
        real = os.path.realpath(parent)
        folders[:] = [] if real in visited else [name for name in folders if _visible(name)]
        if real not in visited:
            yield from (Path(parent, name) for name in files if _is_image_name(name))
        visited.add(real)


def _raise(error: OSError) -> None:
    raise error


def _zip_members(source: Path) -> dict[str, tuple[str, ...]]:
    """The files in a zip, each with the parts of its path."""
    try:
        with zipfile.ZipFile(source) as opened:
            members = [info.filename for info in opened.infolist() if not info.is_dir()]
    except MemoryError:
        raise
    except Exception as error:  # what it raises depends on where the damage is
        raise ImageError(f"{source} cannot be read as a zip ({error}); get it anew") from error
    return {member: PurePosixPath(member).parts for member in members}


def _is_zipped_image(path: tuple[str, ...]) -> bool:
    return len(path) > 1 and all(map(_visible, path)) and _is_image_name(path[-1])


def _find_in_zip(source: Path, table: ClassTable, classes: Sequence[int] | None) -> _Found:
    parts = _zip_members(source)
    names = sorted({path[0] for path in parts.values() if len(path) > 1})
    labels = {name: _wanted_label(name, source, table, classes) for name in names}
    refs: list[ImageRef] = []
    others: list[tuple[int, str]] = []
    for member, path in parts.items():
        label = labels[path[0]] if _is_zipped_image(path) else None
        if label is not None and _suffix(member) in _SUFFIXES:
            refs.append(ImageRef(source, label, member=member))
        elif label is not None:
            others.append((label, _suffix(member)))
    return _Found(refs, names, others)


def _find_in_idx(source: Path, table: ClassTable) -> _Found:
    labels_path = source.with_name(dict([_IDX_TRAIN, _IDX_TEST])[source.name])
    if not labels_path.exists():
        raise ImageError(f"{source} lies there without its labels; put {labels_path.name} there")
    images, labels = read_idx(source), read_idx(labels_path)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ImageError(
            f"{source} holds an array of shape {images.shape} and {labels_path.name} one of "
            f"{labels.shape}; expected (n, H, W) and (n,)"
        )
    if labels.max() >= len(table):
        raise ImageError(
            f"{labels_path} names class {labels.max()}, but the network has {len(table)} classes; "
            "these images do not fit this network"
        )
    refs = [ImageRef(source, label, index=i) for i, label in enumerate(labels.tolist())]
    return _Found(refs, [str(label) for label in sorted(set(labels.tolist()))])


def _wanted_label(
    name: str, source: Path, table: ClassTable, classes: Sequence[int] | None
) -> int | None:
    matches = table.matches(name)
    if classes is not None and not set(matches) & set(classes):
        return None
    try:
        return table.lookup(name)
    except InputError as error:
        raise ImageError(f"in {source}, {error} Rename the folder.") from error


def _visible(name: str) -> bool:
    return not name.startswith(".")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_image_name(name: str) -> bool:
    return _visible(name) and _suffix(name) in (*_SUFFIXES, *OTHER_SUFFIXES)


def _image_set(
    source: Path, table: ClassTable, classes: Sequence[int] | None
) -> tuple[ImageSet, Counter[str]]:
    """The images in a source, which must have some of every class; and others, by suffix."""
    there = _find(source, table, classes)
    refs, names = there.refs, there.names
    if classes is None:
        if not refs:
            found = f"found {shortened(names)}" if names else "found no folders at all"
            raise ImageError(
                f"{source} holds no images of any of the network's {len(table)} classes; "
                f"expected a folder of images for each class, {found}"
            )
        classes = sorted({ref.label for ref in refs})
    images = _sorted_set(refs, classes)
    if missing := [label for label in classes if label not in images.counts()]:
        others = Counter(suffix for label, suffix in there.others if label in missing)
        message = what_is_missing(source, table, missing, len(classes), names, _SUFFIXES)
        if others:
            message += f" Left out: {described(others)}, not read; convert to JPEG."
        raise ImageError(message)
    return images, Counter(suffix for label, suffix in there.others if label in set(classes))
