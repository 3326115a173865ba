"""What the original says of the images that weights are fitted on, at several input sizes.

It is slow to answer, so it is asked once for the input size at hand and, as far as memory allows,
for those next to it, which a search is likely to go to.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from distillnet.graph import Graph
from distillnet.images.preprocessing import Size
from distillnet.refit.teacher import Teacher, bytes_to_teach, teach_all
from distillnet.search.sized import Sized

__all__ = ["Teachers"]

_BYTES = 10**9  # of the answers for one input size, as float32
_BYTES_OF_SIZES = 25 * 10**8  # for all of them


class Teachers:
    """Answers of the original, by input size, of the images that were asked of last.

    Args:
        original: the network as it came, at its own size.
        graphs: the network at other sizes that may be tried.

    Attributes:
        at_own_size: whether the original is asked at its own size; else at that of the student.
    """

    def __init__(self, original: Sized, graphs: Mapping[Size, Graph], seed: int) -> None:
        self.original, self.graphs, self.seed = original, graphs, seed
        self.at_own_size = True
        self.known: Mapping[Size, Teacher] = {}
        self.images = torch.empty(0, dtype=torch.int64)

    def of(self, images: Tensor, here: Sized) -> Teacher:
        """What layers are to say of images, by position, at the size of ``here``."""
        height, width = here.graph.input.shape[1:]
        size = height, width
        if size not in self.known or not bool(torch.isin(images, self.images).all()):
            self._ask(images, here, size)
        teacher = self.known[size]
        if len(images) == len(self.images):
            return teacher
        place = torch.zeros(len(here.x_nchw), dtype=torch.int64)
        place[self.images] = torch.arange(len(self.images))
        return teacher.of(place[images])

    def forget(self) -> None:
        """Let go of all answers: others will be needed."""
        self.known = {}

    def _ask(self, images: Tensor, here: Sized, size: Size) -> None:
        original, students = self.original if self.at_own_size else here, {size: here.graph}

        def needed(student: Graph) -> int:
            return bytes_to_teach(original.graph, student, len(images), _BYTES)

        left = _BYTES_OF_SIZES - needed(here.graph)
        others = self.graphs.keys() - {size} if self.at_own_size else ()
        for other in sorted(others, key=lambda other: _distance(other, size)):
            left -= needed(self.graphs[other])
            if left < 0:
                break
            students[other] = self.graphs[other]
        x_nchw = original.x_nchw[images]
        self.known = teach_all(original.graph, students, x_nchw, max_bytes=_BYTES, seed=self.seed)
        self.images = images


def _distance(one: Size, other: Size) -> int:
    """In pixels of both sides; of two as far away, the smaller one is nearer.

    >>> sorted([192, 176, 160, 144, 128], key=lambda side: _distance((side, side), (160, 160)))
    [160, 144, 176, 128, 192]
    """
    return abs(2 * (sum(one) - sum(other)) + 1)
