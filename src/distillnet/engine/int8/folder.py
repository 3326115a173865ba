"""A network in whole numbers as a folder of C."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.folder import write_folder
from distillnet.engine.int8.emit import source_of
from distillnet.engine.int8.missions import InBytes
from distillnet.engine.int8.packing import Pixels, pack
from distillnet.engine.int8.quantise import Quantised
from distillnet.engine.steps import MissionBits, Program
from distillnet.images.preprocessing import Preprocessing

__all__ = ["write_int8_folder"]


def write_int8_folder(
    network: Quantised,
    missions: Sequence[MissionBits],
    expected: Mapping[str, NDArray[np.float32]],
    directory: Path,
    prefix: str,
    *,
    banner: str,
    preprocessing: Preprocessing | None = None,
    scale: float = 1.0,
    version: str = "distillnet",
    pixels: Pixels | None = None,
) -> Program:
    """Write into an existing folder what ``write_folder`` writes of a float network.

    Args:
        expected: scores of ``noise_image`` by mission, as ``reference_scores`` has them: the C has
            to give the same bits.
        pixels: how images of bytes are normalised, which adds a function that takes them.

    Returns:
        What was written, with its weights.

    Raises:
        InputError: the prefix is no name in C.
    """
    packed = pack(network, pixels)
    write_folder(
        packed.program, missions, expected, directory, prefix, banner=banner,
        preprocessing=preprocessing, scale=scale, version=version,
        source=source_of(packed, network.block), numbers=InBytes(network),
    )  # fmt: skip
    return packed.program
