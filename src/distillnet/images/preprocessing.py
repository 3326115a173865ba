"""How an image becomes the tensor that a network was trained on."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Preprocessing", "Size", "pixels", "preprocess", "values"]

Size = tuple[int, int]  # height and width in pixels

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Preprocessing:
    """A network's input convention: size, crop, value range, mean, deviation, channel order.

    ``resize`` is the length in pixels of the shorter side before the centre crop to
    ``input_size``; None squashes the whole image to ``input_size``. Values are
    ``(x / divisor - mean) / std`` with x in 0..255, per channel in the order of ``channels``.
    """

    input_size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    divisor: float = 255.0
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def with_input_size(self, input_size: Size) -> "Preprocessing":
        """The same convention at another (H, W); the resize keeps its ratio to the crop."""
        if self.resize is None:
            return replace(self, input_size=input_size)
        ratio = self.resize / min(self.input_size)
        return replace(self, input_size=input_size, resize=round(ratio * min(input_size)))


def preprocess(image: Image.Image, how: Preprocessing) -> torch.Tensor:
    """The float32 tensor (C, H, W) that the network takes for an 8-bit RGB or grey image.

    >>> grey = Image.new("L", (40, 20), 255)
    >>> preprocess(grey, Preprocessing((8, 8), (0.5,), (0.5,), channels="L")).mean().item()
    1.0
    """
    return torch.from_numpy(values(pixels(image, how), how))


def pixels(image: Image.Image, how: Preprocessing) -> NDArray[np.uint8]:
    """The image in the network's size and order of channels, still in 8 bits (C, H, W)."""
    height, width = how.input_size
    resample = _RESAMPLING[how.interpolation]
    image = image.convert("L" if how.channels == "L" else "RGB")
    if how.resize is None:
        if image.size != (width, height):
            image = image.resize((width, height), resample)
    else:
        # torchvision truncates the longer side and rounds the crop's offset; so do we.
        new_width, new_height = (how.resize * side // min(image.size) for side in image.size)
        image = image.resize((new_width, new_height), resample)
        left, top = _crop_offset(new_width, width), _crop_offset(new_height, height)
        image = image.crop((left, top, left + width, top + height))
    bands = image.split()
    return np.stack(
        [np.asarray(band) for band in (bands[::-1] if how.channels == "BGR" else bands)]
    )


def values(pixels_chw: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """Pixels as the numbers that the network takes (C, H, W)."""
    x_chw = np.empty(pixels_chw.shape, np.float32)
    # NumPy, not torch: waking torch's threads for so little takes longer than the work itself. And
    # band by band: a broadcast over three values in a row takes twice as long.
    for x_hw, band, mean, std in zip(x_chw, pixels_chw, how.mean, how.std, strict=True):
        np.divide(band, np.float32(how.divisor), out=x_hw)
        x_hw -= np.float32(mean)
        x_hw /= np.float32(std)
    return x_chw


def _crop_offset(length: int, crop: int) -> int:
    """Where a centre crop begins; negative where torchvision pads with black instead."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
