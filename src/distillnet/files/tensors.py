"""Safetensors files, written like any other."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["write_tensors"]


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; OSError, as of any file, where it fails."""
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; the library makes it private
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        # "I/O error: No space left on device (os error 28)"
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)
