"""Peak memory of a network in a runtime, measured in a process of its own.

    python -m distillnet.deploy.peak RUNTIME FILE THREADS N C H W

prints by how many MB the resident memory rose at most from before the network was loaded.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from distillnet.deploy.runtimes import open_runtime

__all__ = ["peak_mb"]


def peak_mb(runtime: str, path: Path, threads: int, shape: tuple[int, ...]) -> float | None:
    """MB for images of ``shape`` (N, C, H, W); None where the system does not tell."""
    # -P: not from where the user stands, which may be somebody else's folder.
    python = (sys.executable, "-P", "-m", "distillnet.deploy.peak")
    command = [*python, runtime, str(path), str(threads)]
    done = subprocess.run([*command, *map(str, shape)], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _main(runtime: str, path: str, threads: str, *shape: str) -> None:
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not (reset.exists() and status.exists()):  # Linux only: elsewhere imports hide the peak
        return
    if runtime in ("onnx", "openvino"):
        __import__({"onnx": "onnxruntime"}.get(runtime, runtime))
    x = np.zeros(tuple(map(int, shape)), np.float32)
    reset.write_text("5")  # the peak so far is forgotten
    before = _resident(status)
    run = open_runtime(runtime, Path(path), int(threads))
    for _ in range(3):
        run(x)
    print((_resident(status) - before) / 2**10)  # noqa: T201


def _resident(status: Path) -> int:
    """The peak of resident memory in kB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    _main(*sys.argv[1:])
