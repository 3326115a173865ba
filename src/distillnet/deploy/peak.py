"""Peak memory of a network in a runtime, measured in a process of its own.

    python -m distillnet.deploy.peak RUNTIME FILE THREADS N C H W

prints by how many MB the resident memory rose at most from before the network was loaded.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from distillnet.deploy.runtimes import open_runtime

__all__ = ["peak_mb"]


def peak_mb(runtime: str, path: Path, threads: int, shape: tuple[int, ...]) -> float | None:
    """MB for images of ``shape`` (N, C, H, W); None where the system does not tell."""
    command = [sys.executable, "-m", "distillnet.deploy.peak", runtime, str(path), str(threads)]
    done = subprocess.run([*command, *map(str, shape)], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _main(runtime: str, path: str, threads: str, *shape: str) -> None:
    try:
        import resource  # there is none on Windows
    except ImportError:
        return
    if runtime in ("onnx", "openvino"):
        __import__({"onnx": "onnxruntime"}.get(runtime, runtime))
    x = np.zeros(tuple(map(int, shape)), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = open_runtime(runtime, Path(path), int(threads))
    for _ in range(3):
        run(x)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown / (2**20 if sys.platform == "darwin" else 2**10))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
