"""Bitmaps: which neurons a class needs, their fusion over a mission, and their measures.

Pure functions, Equations 7, 8 and 13 to 16 of the Distill-Net paper, with the misprints mended.
Legend: K classes, C channels, H and W the output map's sides; True is always *keep*.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.errors import InputError

__all__ = [
    "bitmap",
    "complete_removal",
    "compression_ratio",
    "dormant_density",
    "fuse",
    "pack",
    "quantile_threshold",
    "unpack",
]


def bitmap(heat: Tensor, threshold: float) -> Tensor:
    """Keep the neurons whose mean activity reaches the layer's threshold (Eq. 13).

    Args:
        heat: (..., C, H, W) or (..., F), mean output of each neuron over one class's images.
        threshold: TH_l, in the units of the layer's output.

    >>> bitmap(torch.tensor([0.0, 0.5, 1.0]), 0.5).tolist()
    [False, True, True]
    """
    return heat >= threshold


def fuse(bitmaps: Tensor) -> Tensor:
    """Keep a neuron that any class of the mission needs (Eq. 14, read as its text has it).

    Args:
        bitmaps: bool (K, ...), one per class.

    >>> fuse(torch.tensor([[True, False, False], [False, False, True]])).tolist()
    [True, False, True]
    """
    return bitmaps.any(0)


def complete_removal(keep: Tensor) -> Tensor:
    """True for each channel whose keep map is all zero, so that it can go as a whole (Eq. 15).

    Args:
        keep: bool (C, H, W) or (F,).

    >>> complete_removal(torch.tensor([[[True, False]], [[False, False]]])).tolist()
    [False, True]
    """
    return ~keep.reshape(keep.shape[0], -1).any(1)


def compression_ratio(keep: Tensor) -> float:
    """Neurons of a layer over neurons left: H W M / (H W M - (cr H W + pr)) (Eq. 16).

    cr is the number of channels removed completely, pr that of the neurons removed partially.
    Infinite when nothing is left.

    >>> compression_ratio(torch.tensor([[[True, False]], [[False, False]]]))
    4.0
    """
    left = int(keep.sum())
    return keep.numel() / left if left else float("inf")


def dormant_density(
    maps: Tensor, threshold: float = 0.0, kernel: int = 1, stride: int = 1
) -> float:
    """The share of dormant neurons in the tile that has most of them (Eq. 7, 8).

    tau counts exact zeros (``threshold`` 0), tau' also what the threshold takes to zero. A tile is
    the input of one output neuron: all channels of a kernel x kernel window.

    Args:
        maps: (N, C, H, W) or (N, F), outputs after the nonlinearity.

    >>> maps = torch.tensor([[[[0.0, 0.0, 3.0]], [[0.0, 0.2, 5.0]]]])  # (1, 2, 1, 3)
    >>> dormant_density(maps), dormant_density(maps, 0.5)
    (1.0, 1.0)
    >>> dormant_density(maps[..., 1:]), dormant_density(maps[..., 2:])
    (0.5, 0.0)
    """
    dormant = maps.abs() < threshold if threshold > 0 else maps == 0
    share = dormant.to(torch.float32)
    if share.ndim == 2:
        return float(share.mean(1).max())
    share_n1hw = share.mean(1, keepdim=True)
    kernel = min(kernel, *share_n1hw.shape[2:])
    return float(F.avg_pool2d(share_n1hw, kernel, stride).max())


def quantile_threshold(heat: Tensor, share: float) -> float:
    """The threshold under which a given share of a layer's neurons falls.

    Args:
        heat: (K, ...), heat per class; a neuron falls when all classes' heat is below.
        share: in [0, 1]; 0 gives a threshold that removes nothing.

    >>> quantile_threshold(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 0.5)
    3.0
    """
    hottest = heat.amax(0).flatten()
    rank = min(int(share * hottest.numel()), hottest.numel() - 1)
    if rank == 0:
        return float("-inf")
    return float(hottest.kthvalue(rank + 1).values)


def pack(keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bit-pack keep maps: eight neurons a byte, most significant bit first.

    Each map becomes ``NAME`` (uint8) and ``NAME#shape`` (int64).

    >>> unpack(pack({"a": torch.tensor([[True, False, True]])}))["a"].tolist()
    [[True, False, True]]
    """
    packed = {}
    for name, bits in keep.items():
        flat = bits.detach().cpu().flatten().numpy()
        packed[name] = torch.from_numpy(np.packbits(flat))
        packed[f"{name}#shape"] = torch.tensor(bits.shape, dtype=torch.int64)
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keep maps that ``pack`` packed.

    Raises:
        InputError: a shape is missing, or is not that of so many bytes.
    """
    keep = {}
    for name, data in packed.items():
        if name.endswith("#shape"):
            continue
        shape = _shape(name, data, packed.get(f"{name}#shape"))
        bits = np.unpackbits(data.numpy(), count=math.prod(shape))
        keep[name] = torch.from_numpy(bits).bool().reshape(shape)
    return keep


def _shape(name: str, data: Tensor, shape: Tensor | None) -> tuple[int, ...]:
    """The shape that a map says it has, which must be that of its bytes before any are unpacked."""
    if shape is None or shape.dtype != torch.int64 or shape.ndim != 1 or not 1 <= len(shape) <= 3:
        found = "none" if shape is None else f"{shape.dtype} {tuple(shape.shape)}"
        raise InputError(
            f"found no shape of the bitmap {name!r} ({found}); expected int64 of 1 to 3 numbers, "
            "distill again"
        )
    sizes: tuple[int, ...] = tuple(shape.tolist())
    n_bytes = -(-math.prod(sizes) // 8)
    if data.dtype != torch.uint8 or data.ndim != 1 or min(sizes) < 1 or len(data) != n_bytes:
        raise InputError(
            f"found the bitmap {name!r} of shape {sizes} in {data.dtype} {tuple(data.shape)}; "
            f"expected sizes of 1 or more, and one bit for each in uint8 ({n_bytes},). Distill "
            "again"
        )
    return sizes
