"""Safetensors files, written like any other."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from distillnet.files.regular import read_regular

__all__ = ["read_tensor", "read_tensors", "write_tensors"]

_AT_MOST = 2**32


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, of any name; OSError or SafetensorError where it fails."""
    # The library opens only paths that are UTF-8.
    return load(read_regular(path, _AT_MOST))


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a file, without reading the others; OSError or SafetensorError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        tensors = read_tensors(path)
        if name not in tensors:
            raise SafetensorError(f"File does not contain tensor {name}") from None
        return tensors[name]
    with safe_open(path, "pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


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
