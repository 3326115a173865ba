"""What an atlas may hold, as anybody may have written it, and which atlases add up."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distillnet.errors import InputError

__all__ = ["DIGEST_BYTES", "check_alike", "fits", "is_sound", "side_of"]

_LARGEST = 1e15
DIGEST_BYTES = 16


def fits(
    name: str, values: Tensor, samples: int, images: int, others: Mapping[str, Tensor]
) -> bool:
    """Whether a tensor of a class is of the type and shape that its name tells."""
    shape, kind = tuple(values.shape), name.partition("/")[0]
    if name == "keys":
        return values.dtype == torch.int64 and shape == (samples,)
    if name == "images":
        return values.dtype == torch.uint8 and shape == (images, DIGEST_BYTES)
    if kind == "need":
        return values.dtype == torch.float32 and values.ndim == 1 and side_of(len(values)) > 0
    if kind not in ("patch", "output", "value"):
        return False
    if name.endswith("#scale"):
        own = name.removesuffix("#scale") in others
        return own and values.dtype == torch.float32 and shape == (samples,)
    own = f"{name}#scale" in others
    return own and values.dtype == torch.int8 and values.ndim == 2 and len(values) == samples


def is_sound(name: str, values: Tensor) -> bool:
    """Whether numbers are such as a pass over images gives."""
    if name == "keys":  # ascending
        return bool((values[:1] >= 0).all()) and bool((values[1:] >= values[:-1]).all())
    least = 0 if name.endswith("#scale") else -_LARGEST
    return not values.is_floating_point() or bool(
        ((values >= least) & (values <= _LARGEST)).all()  # of NaN neither is true
    )


def check_alike(
    first: Path, other: Path, of_first: Mapping[str, object], of_other: Mapping[str, object]
) -> None:
    """Raise InputError where two atlases differ in what they are of, by its name in words."""
    for what, expected in of_first.items():
        if of_other[what] != expected:
            raise InputError(
                f"{other} is of another {what} than {first} ({str(of_other[what])[:80]} instead of "
                f"{str(expected)[:80]}); atlases of one network, fed alike, can be merged"
            )


def side_of(half: int) -> int:
    """Of a matrix with so many numbers in its upper half; 0 where there is none.

    >>> side_of(6), side_of(7)
    (3, 0)
    """
    side = (math.isqrt(8 * half + 1) - 1) // 2
    return side if side * (side + 1) == 2 * half else 0
