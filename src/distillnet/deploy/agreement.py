"""Do an exported file and the network it was made of say the same of the same images?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distillnet.images.preprocessing import Preprocessing

__all__ = ["TOLERANCE", "Agreement", "as_pixels", "compare"]

# Of the range of the scores: float32 sums in another order differ by a few 1e-6 of it.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """How far the scores of two implementations of one network lie apart.

    Attributes:
        largest: difference of two scores, as a share of the range of all scores.
        decisions: images on which the best class differs.
    """

    largest: float
    decisions: int
    images: int

    @property
    def holds(self) -> bool:
        return self.largest <= TOLERANCE


def compare(
    module: nn.Module, other: Callable[[NDArray[Any]], NDArray[np.float32]], x_nchw: Tensor
) -> Agreement:
    """Compare a module's scores with another implementation's on images (N, C, H, W)."""
    with torch.inference_mode():
        y = torch.cat([module(part) for part in x_nchw.split(32)]).numpy()
    z = np.concatenate([other(part.numpy()) for part in x_nchw.split(32)])
    spread = max(float(y.max() - y.min()), 1e-30)
    return Agreement(
        float(np.abs(y - z).max()) / spread, int((y.argmax(1) != z.argmax(1)).sum()), len(y)
    )


def as_pixels(x_nchw: NDArray[np.float32], how: Preprocessing) -> NDArray[np.uint8]:
    """The 8-bit RGB images (N, H, W, 3) that normalised ones (N, C, H, W) came from."""
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (how.mean, how.std))
    x = ((x_nchw * std + mean) * np.float32(how.divisor)).round().clip(0, 255).astype(np.uint8)
    if how.channels == "BGR":
        x = x[:, ::-1]
    elif how.channels == "L":
        x = x.repeat(3, axis=1)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return pixels
