"""Networks as small files: weights that share few values, entropy-coded and decoded exactly."""

from distillnet.models.packed.file import (
    KINDS,
    Packed,
    Unpacked,
    read_packed,
    write_packed,
)
from distillnet.models.packed.tensors import Plain, Shared, steps_of

__all__ = [
    "KINDS",
    "Packed",
    "Plain",
    "Shared",
    "Unpacked",
    "read_packed",
    "steps_of",
    "write_packed",
]
