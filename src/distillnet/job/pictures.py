"""Statistics and search images as tensors at any input size, with the network captured there."""

from collections.abc import Callable

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.errors import ImageError, UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS
from distillnet.images import (
    MAX_UNREADABLE_PERCENT,
    Album,
    ImageRef,
    ImageSet,
    Loaded,
    limit,
    load_all,
)
from distillnet.images.preprocessing import Size
from distillnet.job.partition import Images
from distillnet.models import Model
from distillnet.search import Found, Sized

__all__ = ["Pictures"]

# All search images stay in memory: 3,300 of 224 x 224, at most 5,000, on which a loss of one point
# is known to a fifth of a point. More would take time and change nothing.
_SEARCH_BYTES, _SEARCH_MOST = 2 * 10**9, 5000
# Images that weights are fitted on: 1,000 of GoogLeNet; more where the network takes less for each.
_FIT_MACS, _FIT_BYTES, _FIT_LEAST, _FIT_MOST = 1.6 * 10**12, 6 * 10**8, 1000, 10_000
# Input sizes that are tried: down to half the network's own, in steps of a 14th of it and of whole
# 16 pixels, for most networks halve their maps four or five times. Small images stay as they are.
_SIDES = tuple((14 - i) / 14 for i in range(1, 8))
_SIDE_STEP, _SMALL_SIDE = 16, 64
_DENSITY_IMAGES = 50  # search images that the dormant densities of the report are taken from


def _share(side: int, share: float) -> int:
    return max(1, round(side * share / _SIDE_STEP)) * _SIDE_STEP


def _input_sizes(own: Size) -> tuple[Size, ...]:
    """The input sizes that a search may try, the network's own first.

    >>> [height for height, _ in _input_sizes((224, 224))]
    [224, 208, 192, 176, 160, 144, 128, 112]
    """
    height, width = own
    if min(own) < _SMALL_SIDE:
        return (own,)
    sizes = [(_share(height, share), _share(width, share)) for share in _SIDES]
    smaller = [size for size in dict.fromkeys(sizes) if size[0] < height and size[1] < width]
    return (own, *smaller)


class Pictures:
    """Statistics and search images as tensors, with the network captured at their size.

    Args:
        graph: of the network at its own size, where it is known.
        macs: of the network at its own size; the more, the fewer images weights are fitted on.
        on_read: called with (done, of) while search images are read for the first time.

    Attributes:
        album: where large images are kept for the sizes to try.
    """

    def __init__(
        self,
        model: Model,
        mission: Mission,
        images: Images,
        *,
        macs: int,
        device: torch.device,
        graph: Graph | None = None,
        keep_input_size: bool = False,
        seed: int = 0,
        workers: int = 0,
        max_unreadable_percent: float = MAX_UNREADABLE_PERCENT,
        on_read: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self.model, self.mission, self.images, self.macs = model, mission, images, macs
        self.device = device
        self.seed, self.workers, self.on_read = seed, workers, on_read
        self.max_unreadable_percent = max_unreadable_percent
        self.own_size = model.preprocessing.input_size
        self.allowed = (self.own_size,) if keep_input_size else _input_sizes(self.own_size)
        self.album = Album(model.preprocessing, self.allowed)
        self.graphs: dict[Size, Graph] = {} if graph is None else {self.own_size: graph}
        self.loaded: dict[Size, tuple[Sized, Tensor, Tensor]] = {}
        self.read: dict[str, tuple[ImageRef, ...]] = {}
        self.unreadable: tuple[str, ...] = ()
        self.n_search = 0

    def sizes(self) -> tuple[Size, ...]:
        """The input sizes to try, the network's own first."""
        own, *smaller = self.allowed
        return (own, *(size for size in smaller if self._can_capture(size)))

    def _can_capture(self, size: Size) -> bool:
        """Whether there is the network at a size: layers may count on their input's."""
        try:
            self.graphs[size] = self._captured(size)
        except UnsupportedError:
            return False
        return True

    def _captured(self, size: Size) -> Graph:
        return capture_model(self.model, size, like=next(iter(self.graphs.values()), None))

    def widths(self) -> list[int]:
        """How many channels each layer of the network has."""
        graph = self.sized(self.own_size).graph
        return [node.shape[0] for node in graph.nodes if node.op in LAYERS]

    def sized(self, size: Size) -> Sized:
        """The network and its images at an input size; the original's and the latest are kept."""
        return self._at(size)[0]

    def labels(self) -> Tensor:
        """Of the search images, positions in the mission."""
        return self._at(self.own_size)[1]

    def labels_statistics(self) -> Tensor:
        """Of the statistics images, positions in the mission."""
        return self._at(self.own_size)[2]

    def shares(self) -> list[int] | None:
        """How many report images the mission's classes have; None where there is no report."""
        counts = self.images.val.counts()
        return [counts.get(index, 0) for index in self.mission.indices] if counts else None

    def some(self, size: Size) -> Tensor:
        """A few search images."""
        x = self.sized(size).x_search
        return x[:: max(1, len(x) // _DENSITY_IMAGES)]

    def size_of(self, found: Found) -> Size:
        """The input size of a found network."""
        height, width = found.graph.input.shape[1:]
        return height, width

    def _at(self, size: Size) -> tuple[Sized, Tensor, Tensor]:
        if size not in self.loaded:
            for other in set(self.loaded) - {self.own_size}:
                del self.loaded[other]
            if size not in self.graphs:
                self.graphs[size] = self._captured(size)
            graph = self.graphs[size].to(self.device)
            fitted_on = _to_fit_on(self.images.statistics, self.model, self.macs)
            statistics = self._read(fitted_on, size)
            searched_on = _to_search_on(self.images.search, self.model, self.seed)
            search = self._read(searched_on, size, tell=size == self.own_size)
            self._check("statistics", statistics)
            self._check("search", search)
            x_nchw = torch.cat([statistics.x_nchw, search.x_nchw]).to(self.device)
            sized = Sized(graph, analyse(graph), x_nchw, len(statistics.x_nchw))
            if size == self.own_size:
                self.unreadable, self.n_search = search.unreadable, len(search.refs)
            self.loaded[size] = sized, self._positions(search), self._positions(statistics)
        return self.loaded[size]

    def _check(self, role: str, loaded: Loaded) -> None:
        """Refuse images that lack a class, or are not those of the size before."""
        seen = {int(c) for c in loaded.labels_n}
        for index, name in zip(self.mission.indices, self.mission.names, strict=True):
            if index not in seen:
                raise ImageError(
                    f"none of the {role} images shows {name}; expected some of each class of the "
                    "mission, among those that can be read. Add images, or use another --atlas"
                )
        if self.read.setdefault(role, loaded.refs) != loaded.refs:
            raise ImageError(
                f"some {role} images could be read at first and cannot any more, or the other way "
                "round; distill again while nothing changes them"
            )

    def _positions(self, loaded: Loaded) -> Tensor:
        """The images' classes as positions in the mission."""
        return torch.tensor([self.mission.indices.index(int(c)) for c in loaded.labels_n])

    def _read(self, images: ImageSet, size: Size, tell: bool = False) -> Loaded:
        how = self.model.preprocessing.with_input_size(size)

        def report(n: int) -> None:
            if tell:
                self.on_read(n, len(images))

        return load_all(
            images,
            how,
            workers=self.workers,
            on_image=report,
            max_unreadable_percent=self.max_unreadable_percent,
            album=self.album,
        )


def _to_fit_on(images: ImageSet, model: Model, macs: int) -> ImageSet:
    """As many images as weights are fitted on, the classes in equal parts."""
    how = model.preprocessing
    per_image = 4 * len(how.mean) * how.input_size[0] * how.input_size[1]
    affordable = min(_FIT_BYTES // per_image, int(_FIT_MACS // macs))
    count = min(_FIT_MOST, max(_FIT_LEAST, affordable))
    return limit(images, max(1, count // max(1, len(images.counts()))), 0)


def _to_search_on(images: ImageSet, model: Model, seed: int) -> ImageSet:
    """As many images as are searched on, the classes in equal parts."""
    how = model.preprocessing
    per_image = 4 * len(how.mean) * how.input_size[0] * how.input_size[1]
    count = min(_SEARCH_MOST, _SEARCH_BYTES // per_image)
    return limit(images, max(1, count // len(images.counts())), seed)
