"""The two ways a tensor lies in a packed file: as whole numbers that share steps, or as it is."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Plain", "Shared", "sha256_of", "steps_of"]

# 2^(e/2) for an int8 e, in float32: one rounding, the same on every machine.
_STEPS = np.array(
    [math.ldexp(math.sqrt(2) if e % 2 else 1.0, e // 2) for e in range(-128, 128)], np.float32
)


def steps_of(exponents: NDArray[np.int8]) -> NDArray[np.float32]:
    """What half octaves stand for.

    >>> steps_of(np.array([-2, 0, 1, 4], np.int8))
    array([0.5      , 1.       , 1.4142135, 4.       ], dtype=float32)
    """
    return _STEPS[exponents.astype(np.int64) + 128]


@dataclass(frozen=True)
class Plain:
    """A tensor kept as it is."""

    value: Tensor


@dataclass(frozen=True)
class Shared:
    """A weight of few values: a level times the steps of its row and column, or from a codebook.

    Attributes:
        levels: whole numbers (M, D); 0 is a weight that is gone.
        rows, columns: half octaves (M,) and (D,).
        codebook: values of the levels from -(K // 2) on, float32 (K,); empty without one.
    """

    shape: tuple[int, ...]
    levels: NDArray[np.integer]
    rows: NDArray[np.int8]
    columns: NDArray[np.int8]
    codebook: NDArray[np.float32]

    @property
    def value(self) -> Tensor:
        """The weight, float32; ValueError where a level points out of the codebook."""
        if len(self.codebook):
            at = self.levels.astype(np.int64) + len(self.codebook) // 2
            if at.size and (at.min() < 0 or at.max() >= len(self.codebook)):
                raise ValueError("a level points out of the codebook")
            found = self.codebook[at]
        else:
            step = steps_of(self.rows)[:, None] * steps_of(self.columns)
            found = self.levels.astype(np.float32) * step
        return torch.from_numpy(found.reshape(self.shape))


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
