"""Tensors as small PNG pictures that lie within a page."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["bitmap_tiles", "colour", "grey", "png", "thumbnail", "tiles"]

_BETWEEN = 128  # grey between tiles
# Viridis at nine places, between which is interpolated: dark is little, bright is much, readable in
# grey and by those who tell no red from green (van der Walt and Smith, 2015).
_VIRIDIS = np.array(
    [
        *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
        *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
    ],
    dtype=np.float64,
)


def png(image: Image.Image) -> str:
    """An image as a ``data:`` address of a PNG, without any metadata."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def thumbnail(image: Image.Image, side: int) -> str:
    """A photograph, made smaller, as a ``data:`` address of a JPEG without metadata."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values from 0, the least, to 1, the largest; zeros where they are all the same."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def grey(values: Tensor) -> Image.Image:
    """(H, W), the least black and the largest white."""
    return Image.fromarray(np.round(255 * _unit(values.double().numpy())).astype(np.uint8))


def colour(values: Tensor, most: float | None = None) -> Image.Image:
    """(H, W) in viridis, from 0 or the least to ``most`` or the largest."""
    array = values.double().numpy()
    scaled = _unit(array) if most is None else np.clip(array / max(most, 1e-30), 0, 1)
    at = scaled * (len(_VIRIDIS) - 1)
    channels = [np.interp(at, range(len(_VIRIDIS)), _VIRIDIS[:, c]) for c in range(3)]
    return Image.fromarray(np.round(np.stack(channels, -1)).astype(np.uint8))


def tiles(maps_nhw: Tensor, columns: int, side: int) -> Image.Image:
    """Maps (N, H, W) side by side, each from black to white by itself, at most ``side`` wide."""
    return _sheet([grey(one) for one in maps_nhw], columns, side)


def bitmap_tiles(keep: Tensor, side: int = 14) -> Image.Image:
    """A keep map, bool (C, H, W) or (F,): a tile for each channel, white where neurons are kept.

    A channel that is kept or removed as a whole needs a single pixel; where any is kept in part, a
    tile has its map, with at most ``side`` pixels to a side.
    """
    maps = keep.reshape(len(keep), -1)
    columns = max(1, round(2 * len(keep) ** 0.5))
    if not bool((maps.all(1) | ~maps.any(1)).all()):
        bits = 255 * keep.numpy().astype(np.uint8)
        return _sheet([Image.fromarray(one) for one in bits], columns, side)
    cells = np.full(-(-len(keep) // columns) * columns, _BETWEEN, np.uint8)
    cells[: len(keep)] = 255 * maps.any(1).numpy().astype(np.uint8)
    return Image.fromarray(cells.reshape(-1, columns))


def _sheet(made: list[Image.Image], columns: int, side: int) -> Image.Image:
    for one in made:
        one.thumbnail((side, side), Image.Resampling.BOX)
    width, height = made[0].size
    rows = -(-len(made) // columns)
    size = columns * (width + 1) - 1, rows * (height + 1) - 1
    sheet = Image.new("L", size, _BETWEEN)
    for i, one in enumerate(made):
        sheet.paste(one, ((i % columns) * (width + 1), (i // columns) * (height + 1)))
    return sheet
