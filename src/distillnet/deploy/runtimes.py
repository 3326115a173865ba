"""Running a network in one of the runtimes that ``bench`` and ``evaluate`` know."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.deploy.c_folder import c_scores
from distillnet.deploy.extras import is_installed, need
from distillnet.deploy.onnx_file import open_onnx
from distillnet.engine import COMPILERS, compiler
from distillnet.errors import InputError
from distillnet.graph import fast_layout
from distillnet.models.programs import load_program

__all__ = ["PRECISION", "RUNTIMES", "available_runtimes", "file_format", "open_runtime"]

PRECISION = "float32"  # of every runtime here, also where it would choose less by itself
Run = Callable[[NDArray[np.float32]], Any]


@dataclass(frozen=True)
class _Runtime:
    """What a runtime reads, which modules it needs and which extra brings them."""

    reads: str  # pt2, onnx or c, a folder
    modules: tuple[str, ...]
    extra: str
    open: Callable[[Path, int], Run]


def _prepare_torch(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")  # else products of matrices may be bfloat16


def _torch(path: Path, threads: int) -> Run:
    _prepare_torch(threads)
    module = load_program(path).module

    def run(x_nchw: NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            return module(fast_layout(torch.from_numpy(x_nchw)))

    return run


def _compiled(path: Path, threads: int) -> Run:
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        raise InputError(
            "the runtime compiled needs a C++ compiler, and there is none; install g++, or leave "
            "this runtime out"
        )
    _prepare_torch(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(load_program(path).module, dynamic=False)

    def run(x_nchw: NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            return compiled(fast_layout(torch.from_numpy(x_nchw)))

    return run


def _onnx(path: Path, threads: int) -> Run:
    return open_onnx(path, threads).scores


def _openvino(path: Path, threads: int) -> Run:
    core = need("openvino", "openvino").Core()
    # By itself it computes in bfloat16 where the processor can.
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
               "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    compiled = core.compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()

    def run(x_nchw: NDArray[np.float32]) -> Any:
        return request.infer({0: x_nchw}, share_inputs=True)[0]

    return run


def _c(path: Path, threads: int) -> Run:
    with TemporaryDirectory() as work:  # the library stays loaded when its file is gone
        return c_scores(path, Path(work))


_KNOWN = {
    "torch": _Runtime("pt2", (), "", _torch),
    "compiled": _Runtime("pt2", (), "", _compiled),
    "onnx": _Runtime("onnx", ("onnxruntime", "onnx", "onnxscript"), "onnx", _onnx),
    "openvino": _Runtime("onnx", ("openvino", "onnx", "onnxscript"), "openvino", _openvino),
    "c": _Runtime("c", (), "", _c),
}
RUNTIMES = tuple(_KNOWN)


def available_runtimes(threads: int = 1) -> tuple[str, ...]:
    """Those whose libraries, and compiler, are installed, and that can use so many threads."""
    missing = set()
    if not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        missing.add("compiled")
    if threads != 1 or not any(shutil.which(name) for name in COMPILERS):
        missing.add("c")
    return tuple(
        name
        for name, runtime in _KNOWN.items()
        if is_installed(*runtime.modules) and name not in missing
    )


def file_format(runtime: str, threads: int = 1) -> str:
    """The format of file that a runtime reads; InputError where it cannot run here."""
    known = _KNOWN[runtime]
    for module in known.modules:
        need(module, known.extra)
    if runtime == "c":
        if threads != 1:
            raise InputError(
                f"found {threads} threads for the runtime c, which computes in the thread that "
                "calls; expected --threads 1, or leave this runtime out"
            )
        compiler()
    return known.reads


def open_runtime(runtime: str, path: Path, threads: int) -> Run:
    """A function from normalised images (N, C, H, W) to scores, with so many threads."""
    return _KNOWN[runtime].open(path, threads)
