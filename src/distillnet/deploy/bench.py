"""Latency of the original and the distilled network side by side.

Both run in turns in one process, A B A B, so that whatever else the machine does falls on both, and
the ratio of two neighbouring runs is what is reported. The original is the network as distillnet
writes it, batch norms folded, so that only the distillation makes the difference.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.cut.times import machine
from distillnet.deploy.c_folder import write_c
from distillnet.deploy.networks import Deployable
from distillnet.deploy.onnx_file import write_onnx
from distillnet.deploy.peak import peak_mb
from distillnet.deploy.pt2_file import write_pt2
from distillnet.deploy.runtimes import file_format, open_runtime
from distillnet.playbook.meters import joules_per_call, open_counter

__all__ = ["Entry", "Settings", "Timing", "bench_json", "interleave", "time_networks"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to measure: threads, images at once beside 1, seconds for each pair of networks."""

    threads: int = 1
    batch: int = 16
    seconds: float = 5.0
    least_runs: int = 20


@dataclass(frozen=True)
class Entry:
    """Times of one network in one runtime, in ms for a whole batch; ``bytes`` of its file.

    ``joules`` are those of the whole machine for a frame, where it counts them.
    """

    network: str
    runtime: str
    batch: int
    median_ms: float
    p05_ms: float
    p95_ms: float
    runs: int
    bytes: int
    peak_mb: float | None
    joules: float | None = None


@dataclass(frozen=True)
class Timing:
    """Of all runtimes; ``time_ratio`` is the median of the paired ratios at batch 1."""

    entries: tuple[Entry, ...]
    time_ratio: dict[str, float]


def interleave(
    calls: Sequence[Callable[[], Any]], seconds: float, least_runs: int, warm_up: int = 5
) -> NDArray[np.float64]:
    """Seconds (runs, calls) of calls made in turns."""
    for _ in range(warm_up):
        for call in calls:
            call()
    rows: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rows) < least_runs or time.perf_counter() < end:
        row = []
        for call in calls:
            start = time.perf_counter()
            call()
            row.append(time.perf_counter() - start)
        rows.append(row)
    return np.array(rows)


def _write_for(network: Deployable, format_: str, folder: Path) -> Path:
    """The network's file in a format, written once."""
    path = folder / f"{network.name}.{format_}"
    if path.exists():
        return path
    if format_ == "c":
        path.mkdir()
        write_c(network, path)
    else:
        (write_onnx if format_ == "onnx" else write_pt2)(network, path)
    return path


def _bytes(path: Path) -> int:
    """Of a file; of a folder of C, what goes to the device but the code, some 100 kB: weights."""
    return (path / "weights.bin" if path.is_dir() else path).stat().st_size


def time_networks(
    networks: Sequence[Deployable],
    runtimes: Sequence[str],
    folder: Path,
    settings: Settings,
    on_progress: Progress = lambda stage, done, of: None,
) -> Timing:
    """Time the original and the distilled network, in this order, in each runtime.

    Args:
        folder: for the files that runtimes read.
    """
    entries: list[Entry] = []
    ratios: dict[str, float] = {}
    batches = tuple(dict.fromkeys((1, settings.batch)))
    done, counter = 0, open_counter()
    for runtime in runtimes:
        paths = [
            _write_for(network, file_format(runtime, settings.threads), folder)
            for network in networks
        ]
        for batch in batches:
            calls, images = [], []
            for network, path in zip(networks, paths, strict=True):
                run = open_runtime(runtime, path, settings.threads)
                images.append(_noise((batch, *network.shape)))
                calls.append(lambda run=run, x=images[-1]: run(x))
            times = interleave(calls, settings.seconds, settings.least_runs)
            for i, (network, path) in enumerate(zip(networks, paths, strict=True)):
                low, median, high = 1e3 * np.percentile(times[:, i], (5, 50, 95))
                used = joules_per_call(calls[i], counter, min(1.0, settings.seconds))
                peak = peak_mb(runtime, path, settings.threads, images[i].shape)
                entries.append(
                    Entry(
                        network.name, runtime, batch, median, low, high, len(times),
                        _bytes(path), peak, None if used is None else used / batch,
                    )
                )  # fmt: skip
            if batch == 1:
                ratios[runtime] = float(np.median(times[:, 0] / times[:, 1]))
            done += 1
            on_progress("bench", done, len(runtimes) * len(batches))
    return Timing(tuple(entries), ratios)


def _noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Images of no meaning: the time of these layers does not depend on it."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def bench_json(timing: Timing, mac_ratio: float, settings: Settings) -> dict[str, Any]:
    """The content of ``bench.json``."""
    return {
        "threads": settings.threads,
        "machine": machine(),
        "entries": [asdict(entry) for entry in timing.entries],
        "time_ratio": timing.time_ratio,
        "mac_ratio": mac_ratio,
        "realised": {name: ratio / mac_ratio for name, ratio in timing.time_ratio.items()},
    }
