"""Compiling an exported folder with the system's compiler, and calling it from Python."""

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillnet.errors import DistillnetError, InputError

__all__ = ["COMPILERS", "FLAGS", "Native", "build_native", "compiler"]

Floats = NDArray[np.float32]

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno")


class _Mission(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("weights_id", ctypes.c_uint32),
        ("weights", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("classes", ctypes.POINTER(ctypes.c_char_p)),
        ("outputs", ctypes.POINTER(ctypes.c_uint16)),
        ("n_outputs", ctypes.c_int32),
        ("n_layers", ctypes.c_int32),
        ("layers", ctypes.c_void_p),
    )


def compiler() -> str:
    """The system's C compiler; InputError where there is none."""
    for name in COMPILERS:
        if (path := shutil.which(name)) is not None:
            return path
    raise InputError(
        "the runtime c needs a C compiler, and there is none of cc, gcc or clang; install gcc, or "
        "choose another --runtime"
    )


def _native_flag() -> str:
    return "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"


@dataclass(frozen=True)
class Native:
    """A compiled network: its missions, its weights, and an arena of its own.

    Attributes:
        run: of the library, ``PREFIX_run_in``, on addresses; ``check`` is ``PREFIX_check``.
        arena: as it is passed, aligned; one call at a time may use it.
    """

    library: ctypes.CDLL
    run: Callable[..., int]
    check: Callable[..., int]
    prefix: str
    weights: Floats | NDArray[np.uint8]
    arena: NDArray[np.uint8]
    address: int  # of the arena
    shape: tuple[int, int, int]

    def mission(self, name: str) -> _Mission:
        """A copy of a mission, with the weights that were read from the file.

        Raises:
            InputError: the library has no such mission, or the weights are not its own.
        """
        try:
            constant = _Mission.in_dll(self.library, f"{self.prefix}_mission_{name}")
        except ValueError as error:
            raise InputError(
                f"found no mission {name!r} in {self.library._name}; expected one of the folder's "
                "missions/"
            ) from error
        mission = _Mission.from_buffer_copy(constant)
        mission.weights = self.weights.ctypes.data
        if (status := self.check(ctypes.addressof(mission))) != 0:
            raise InputError(
                f"the weights beside {self.library._name} are damaged, or of another network "
                f"(error {status}); expected those that were exported with its code. Export again"
            )
        return mission

    def scores(self, mission: _Mission, x_nchw: Floats) -> Floats:
        """Scores (N, classes) of images (N, C, H, W), one after the other.

        Raises:
            InputError: the images are of another shape.
            DistillnetError: the network returned an error.
        """
        if x_nchw.shape[1:] != self.shape:
            raise InputError(
                f"found images of shape {x_nchw.shape[1:]}; expected {self.shape}, as the "
                "network was exported"
            )
        x = np.ascontiguousarray(x_nchw, np.float32)
        y = np.empty((len(x), mission.n_outputs), np.float32)
        # Addresses by hand: small networks take microseconds, as would ctypes' conversions.
        arena, size, bound = self.address, self.arena.nbytes, ctypes.addressof(mission)
        image, scores = x.ctypes.data, y.ctypes.data
        for i in range(len(x)):
            at = image + i * x.strides[0], scores + i * y.strides[0]
            if (status := self.run(bound, arena, size, *at)) != 0:
                raise DistillnetError(f"the compiled network returned the error {status}")
        return y


def build_native(
    folder: Path,
    prefix: str,
    shape: tuple[int, int, int],
    out: Path | None = None,
    *,
    cc: str | None = None,
    flags: Sequence[str] | None = None,
    weights_type: str = "<f4",
) -> Native:
    """Compile a folder into a shared library beside it (or ``out``) and load it.

    Args:
        shape: (C, H, W) of an image.
        flags: of the target; by default this machine's.
        weights_type: of ``weights.bin``, as NumPy names it.

    Raises:
        InputError: there is no compiler.
        DistillnetError: it refuses the code.
    """
    library = out or folder / f"{prefix}.so"
    command = [
        cc or compiler(), *FLAGS, *([_native_flag()] if flags is None else flags),
        f"-D{prefix.upper()}_WEIGHTS_FROM_FILE", "-shared", "-fPIC",
        str(folder / "model.c"), *sorted(map(str, (folder / "missions").glob("*.c"))),
        *(str(folder / name) for name in ("preprocess.c", "load_mission.c")
          if (folder / name).is_file()),
        "-lm", "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DistillnetError(
            f"{command[0]} cannot compile {folder}: {done.stderr.strip()[:500]}; please report this"
        )
    loaded = ctypes.CDLL(str(library.resolve()))
    count = getattr(loaded, f"{prefix}_arena_bytes")
    count.restype = ctypes.c_size_t
    size = int(count())
    run, void = getattr(loaded, f"{prefix}_run_in"), ctypes.c_void_p
    run.argtypes = (void, void, ctypes.c_size_t, void, void)
    check = getattr(loaded, f"{prefix}_check")
    check.argtypes = (void,)
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    stored = np.dtype(weights_type)
    weights = np.fromfile(folder / "weights.bin", stored)
    weights = weights.astype(stored.newbyteorder("="), copy=False)
    return Native(
        loaded, run, check, prefix, weights, room[start : start + size], room.ctypes.data + start,
        shape,
    )  # fmt: skip
