"""Deep Compression as a file: pack a network or a run, and unpack it exactly."""

from distillnet.deploy.packing.packing import (
    Result,
    Source,
    Step,
    of_model,
    of_run,
    pack,
)
from distillnet.deploy.packing.rounding import METHODS
from distillnet.deploy.packing.unpacking import KINDS_OF_FILES, unpack, unpacked_run

__all__ = [
    "KINDS_OF_FILES",
    "METHODS",
    "Result",
    "Source",
    "Step",
    "of_model",
    "of_run",
    "pack",
    "unpack",
    "unpacked_run",
]
