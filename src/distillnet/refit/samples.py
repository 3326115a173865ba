"""Looking at a layer at a few places of each image: its outputs there, and the patches it sees.

Legend: N images, R places per image, C channels in, M channels out, H and W height and width,
k kernel side.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.graph.operators import Node

__all__ = [
    "by_image",
    "choose_places",
    "evenly",
    "folds_of",
    "outputs_at",
    "patches_at",
    "rows_per_image",
    "same_places",
]


_ROWS_PER_COLUMN, _LEAST_ROWS = 16, 4000  # that a layer is fitted on, of those that there are
_OFTEN = 20  # of so many places one may be drawn twice


def rows_per_image(columns: int, n_images: int) -> int:
    """How many places of each image are enough to fit so many weights of a filter.

    More of them cost time and change little.

    >>> rows_per_image(columns=1000, n_images=800)
    20
    """
    return math.ceil(max(_LEAST_ROWS, _ROWS_PER_COLUMN * columns) / n_images)


def choose_places(shape: tuple[int, ...], n_images: int, per_image: int, seed: int = 0) -> Tensor:
    """Flat positions (N, R) in an output of ``shape`` (M, H, W), drawn at random, all if few.

    A feature vector (F,) has one place. Layers with outputs of one size share their places.

    >>> choose_places((8, 2, 2), 1, 10)
    tensor([[0, 1, 2, 3]])
    """
    if len(shape) == 1:
        return torch.zeros(n_images, 1, dtype=torch.int64)
    height, width = shape[1:]
    if per_image >= height * width:
        return torch.arange(height * width).expand(n_images, -1)
    generator = torch.Generator().manual_seed(seed + 100_003 * height + width)
    if per_image > height * width // _OFTEN:  # places would be drawn twice
        order = torch.rand(n_images, height * width, generator=generator).argsort(1)
        return order[:, :per_image]
    return torch.randint(height * width, (n_images, per_image), generator=generator)


def same_places(places_nr: Tensor, shape: tuple[int, ...], other: tuple[int, ...]) -> Tensor:
    """The places of an output of ``other`` height and width that show the same part of the image.

    >>> same_places(torch.tensor([[0, 3]]), (8, 2, 2), (8, 4, 4))
    tensor([[ 5, 15]])
    """
    if len(shape) == 1 or shape[1:] == other[1:]:
        return places_nr
    (height, width), (other_height, other_width) = shape[1:], other[1:]
    row = (2 * (places_nr // width) + 1) * other_height // (2 * height)
    column = (2 * (places_nr % width) + 1) * other_width // (2 * width)
    return row * other_width + column


def outputs_at(y: Tensor, places_nr: Tensor) -> Tensor:
    """Rows (N R, M) of an output (N, M, H, W); an output (N, F) as it is."""
    if y.ndim == 2:
        return y
    n, m = y.shape[:2]
    y_npm = y.permute(0, 2, 3, 1).reshape(n, -1, m)
    rows = torch.arange(n, device=y.device)[:, None]
    return y_npm[rows, places_nr.to(y.device)].reshape(-1, m)


def patches_at(layer: Node, kernel: tuple[int, ...], x_nchw: Tensor, places_nr: Tensor) -> Tensor:
    """What a layer reads to compute its output at ``places_nr``: rows (N R, C k k), or (N, F).

    The columns are in the order of ``weight.flatten(1)``, so that ``patches @ weight.T`` is the
    layer's output without its bias.

    Args:
        layer: a convolution with one group, or a linear layer.
        kernel: (k, k) of the convolution, () of a linear layer.
    """
    if layer.op == "linear":
        return x_nchw
    (stride_h, stride_w), (step_h, step_w) = layer.attrs["stride"], layer.attrs["dilation"]
    pad_h, pad_w = layer.attrs["padding"]
    if pad_h or pad_w:
        x_nchw = F.pad(x_nchw, (pad_w, pad_w, pad_h, pad_h))
    x_nhwc = x_nchw.permute(0, 2, 3, 1).contiguous()
    n, width = len(x_nhwc), layer.shape[2]
    at = places_nr.to(x_nchw.device)
    image = torch.arange(n, device=at.device)[:, None, None, None]
    rows = (at // width * stride_h)[..., None] + torch.arange(kernel[0], device=at.device) * step_h
    columns = (at % width * stride_w)[..., None] + (
        torch.arange(kernel[1], device=at.device) * step_w
    )
    patch = x_nhwc[image, rows[..., :, None], columns[..., None, :]]  # N, R, k, k, C
    return patch.permute(0, 1, 4, 2, 3).reshape(at.numel(), -1)


def evenly(positions: Tensor, most: int) -> Tensor:
    """At most so many of them, in equal distances: of all classes, which follow each other."""
    if len(positions) <= most:
        return positions
    return positions[torch.arange(most) * len(positions) // most]


def by_image(values_n: Tensor, image_n: Tensor) -> Tensor:
    """The mean over all views of each image, which are numbered from 0 on; float64.

    Several views of an image are one piece of evidence.

    >>> by_image(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 0])).tolist()
    [2.0, 2.0]
    """
    counts = torch.bincount(image_n)
    images = values_n.new_zeros(len(counts), dtype=torch.float64)
    return images.index_add(0, image_n, values_n.double()) / counts


def folds_of(image_n: Tensor, count: int) -> Tensor:
    """Of each of ``image_n`` which fold it belongs to, all views of one to the same.

    Images are numbered class by class, so that folds hold as many of each class.

    >>> folds_of(torch.tensor([7, 3, 7, 5, 3]), 2).tolist()
    [0, 0, 0, 1, 0]
    """
    return image_n.unique(return_inverse=True)[1] % count
