"""The command that says what a bug report should: versions, runtimes, the machine, folders."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distillnet.cli.options import JsonOpt
from distillnet.cli.output import print_json, print_table
from distillnet.cut.times import processor, usable_cores

__all__ = ["doctor_command"]

_NEEDED = ("torch", "torchvision", "numpy", "pillow", "safetensors", "typer", "rich")
_OPTIONAL = ("timm", "onnx", "onnxruntime", "onnxscript", "openvino", "matplotlib", "scikit-learn")
# What each runtime of ``bench`` needs: distributions, and one of these programs.
_RUNTIMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "torch": (("torch",), ()),
    "compiled": (("torch",), ("g++", "c++", "clang++")),
    "onnx": (("onnx", "onnxruntime"), ()),
    "openvino": (("onnx", "openvino"), ()),
    "c": ((), ("cc", "gcc", "clang")),
}
_COLUMNS = (("package", "version"), ("runtime", "found"), ("what", "found"), ("of", "where"))


def doctor_command(as_json: JsonOpt = False) -> None:
    """Show versions, runtimes, the machine and the folders in use, for a bug report."""
    values = _findings()
    if as_json:
        print_json(values)
        return
    for (section, found), columns in zip(values.items(), _COLUMNS, strict=True):
        rows = [[name.replace("_", " "), _told(value)] for name, value in found.items()]
        print_table(section.capitalize(), list(columns), rows, 2)


def _findings() -> dict[str, dict[str, Any]]:
    """All that is told, by section; None where there is none."""
    versions = {name: _version(name) for name in ("distillnet", *_NEEDED, *_OPTIONAL)}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "runtimes": {name: _runtime(*needs) for name, needs in _RUNTIMES.items()},
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "cores_usable": usable_cores(),
            "memory_gb": _memory_gb(),
            "nvidia_driver": Path("/proc/driver/nvidia/version").exists()
            or shutil.which("nvidia-smi") is not None,
        },
        "folders": {
            "torchvision_downloads": _shown(_cache("TORCH_HOME", "torch") / "hub"),
            "timm_downloads": _shown(_cache("HF_HOME", "huggingface")),
            "timings": _shown(_cache(None, "distillnet")),
            "test_data": os.environ.get("DISTILLNET_DATA"),
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _runtime(distributions: tuple[str, ...], programs: tuple[str, ...]) -> str | None:
    """What a runtime was found as, or None where something of it is missing."""
    found = [_version(name) for name in distributions]
    program = next((name for name in programs if shutil.which(name)), None)
    if None in found or (programs and program is None):
        return None
    parts = [f"{name} {number}" for name, number in zip(distributions, found, strict=True)]
    return ", ".join([*parts, *([program] if program else [])])


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):  # not POSIX
        return None


def _cache(variable: str | None, name: str) -> Path:
    """A library's cache folder: where ``variable`` says, else in the user's."""
    if variable and os.environ.get(variable):
        return Path(os.environ[variable])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


def _shown(folder: Path) -> str:
    """A folder without the user's name in it, which is nobody's business in a bug report."""
    home = Path.home()
    shown = f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
    return shown if folder.exists() else f"{shown} (not there yet)"


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "found" if value else "not found"
    return "not found" if value is None else str(value)
