"""Large images made small once, for all the input sizes at which a job looks at them.

To decode a photograph of 12 megapixels takes longer than a small network takes to answer. A search
looks at each photograph at half a dozen input sizes, and a report at those of all its networks.
"""

import math
import threading
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distillnet.images.files import ImageRef
from distillnet.images.preprocessing import Preprocessing, Size, pixels

__all__ = ["Album"]

# Pixels from which it pays: to decode a smaller image takes no longer than to make it small.
_LARGE = 200_000
_MOST_BYTES = 10**9


class Album:
    """Keeps images in 8 bits at some input sizes, as far as memory allows; threads may share it.

    Args:
        how: a network's input convention.
        sizes: at which images are wanted; others are not kept.
        most_bytes: of all that is kept.
    """

    def __init__(
        self, how: Preprocessing, sizes: Iterable[Size], most_bytes: int = _MOST_BYTES
    ) -> None:
        self._wanted = tuple(how.with_input_size(size) for size in dict.fromkeys(sizes))
        channels = 1 if how.channels == "L" else 3
        self._bytes_each = sum(channels * math.prod(each.input_size) for each in self._wanted)
        self._left = most_bytes
        self._counting = threading.Lock()
        self._kept: dict[tuple[ImageRef, Preprocessing], NDArray[np.uint8]] = {}

    def pixels(
        self, ref: ImageRef, how: Preprocessing, read: Callable[[], Image.Image]
    ) -> NDArray[np.uint8]:
        """The image as ``preprocessing.pixels`` makes it, read only where it is not known."""
        known = self._kept.get((ref, how))
        if known is not None:
            return known
        image = read()
        made = pixels(image, how)
        if how in self._wanted and image.width * image.height >= _LARGE and self._has_room():
            for each in self._wanted:
                self._kept[ref, each] = made if each == how else pixels(image, each)
        return made

    def _has_room(self) -> bool:
        """Whether there is room for one image more, which is taken then."""
        with self._counting:
            if self._bytes_each > self._left:
                return False
            self._left -= self._bytes_each
            return True
