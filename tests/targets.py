"""Compiling an exported folder's own test for this or another target, and running it."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = [
    "STRICT",
    "run_elsewhere",
    "run_on_a_cortex_m",
    "run_test_vector",
    "tool",
    "vector_flags",
]

STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
# To optimise wide vectors takes seconds, which is longer than small networks run without.
_WIDTHS = [("-O1", "-DLANES=1"), ("-O1",), ("-O0", "-march=native")]
if (_CPU := Path("/proc/cpuinfo")).exists() and " avx2 " in _CPU.read_text():
    _WIDTHS.append(("-O0", "-mavx2", "-mfma"))
_BOARD = Path(__file__).parent / "engine" / "cortex_m"


def vector_flags(name: str) -> tuple[str, ...]:
    """Vectors of every width that there is, in turns: scalar, SSE or NEON, native, AVX2."""
    return _WIDTHS[sum(map(ord, name)) % len(_WIDTHS)]


def tool(*needed: str) -> None:
    """Skip with a reason where the tools of another target are missing."""
    for name in needed:
        if shutil.which(name) is None:
            pytest.skip(f"no {name}; .ci/run names Debian's packages that bring it")


def run_test_vector(folder: Path, compiler: Sequence[str], emulator: Sequence[str] = ()) -> str:
    """Compile the folder's own test with the weights in it, and run it; what it prints."""
    program = folder / "test_vector"
    sources = ["test_vector.c", "model.c", "weights.c"]
    sources += [f"missions/{path.name}" for path in (folder / "missions").glob("*.c")]
    flags = ["-std=c11", "-ffp-contract=fast", "-fno-math-errno", *STRICT]
    command = [compiler[0], *flags, *compiler[1:], *sources, "-lm", "-o", str(program)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    done = subprocess.run(
        [*emulator, str(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_on_a_cortex_m(folder: Path) -> str:
    """As ``run_test_vector``, bare metal on an emulated board, whose memory the linker checks."""
    tool("arm-none-eabi-gcc", "qemu-system-arm")
    compiler = [
        "arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16",
        "-mfloat-abi=hard", "--specs=rdimon.specs", "-T", str(_BOARD / "mps2.ld"),
        str(_BOARD / "startup.c"),
    ]  # fmt: skip
    emulator = [
        "qemu-system-arm", "-M", "mps2-an386", "-cpu", "cortex-m4", "-nographic",
        "-semihosting-config", "enable=on,target=native", "-kernel",
    ]  # fmt: skip
    return run_test_vector(folder, compiler, emulator)


def run_elsewhere(folder: Path, target: str) -> str:
    """As ``run_test_vector``, for a target by name: other processors are emulated.

    Args:
        target: cortex-m4; neon or dot products, of 64-bit ARM; or one that begins with sanitized.
    """
    if target == "cortex-m4":
        return run_on_a_cortex_m(folder)
    if target.startswith("sanitized"):
        flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
        return run_test_vector(folder, ["cc", *flags, "-march=native"])
    tool("aarch64-linux-gnu-gcc", "qemu-aarch64")
    arch = "-march=armv8.2-a" + "+dotprod" * (target == "dot products")
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-static", arch]
    return run_test_vector(folder, compiler, ["qemu-aarch64"])
