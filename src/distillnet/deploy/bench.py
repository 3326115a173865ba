"""Latency of the original and the distilled network side by side.

They run in turns in one process, A B A B, so that whatever else the machine does falls on both, and
the ratio of two neighbouring runs is what is reported. The original is timed twice: as a plain
export of the user's module, which is what runs today and what ratios are of, and as distillnet
would write it, batch norms folded, so that one sees what of the difference distilling made. Every
runtime computes in float32, whatever it would choose by itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.cut.times import machine
from distillnet.deploy.c_folder import write_c
from distillnet.deploy.networks import PLAIN, Deployable
from distillnet.deploy.onnx_file import write_onnx
from distillnet.deploy.peak import peak_mb
from distillnet.deploy.pt2_file import write_pt2
from distillnet.deploy.runtimes import PRECISION, file_format, open_runtime
from distillnet.errors import DistillnetError, InputError
from distillnet.playbook.meters import joules_per_call, open_counter

__all__ = ["Entry", "Settings", "Timing", "bench_json", "interleave", "time_networks",
           "written_for"]  # fmt: skip

_REASON = 300  # characters of why a network cannot be timed

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to measure: threads, images at once beside 1, seconds in all, and runs at least of each.

    ``memory``: whether peaks are measured, in a process for each network, which takes seconds.
    """

    threads: int = 1
    batch: int = 16
    seconds: float = 10.0
    least_runs: int = 5
    memory: bool = False


@dataclass(frozen=True)
class Entry:
    """Times of one network in one runtime, in ms for a whole batch; ``bytes`` of its file.

    ``joules`` are those of the whole machine for a frame, where it counts them.
    ``written_by`` is "plain export" or "distillnet", ``input_size`` the image's (H, W).
    """

    network: str
    written_by: str
    runtime: str
    precision: str
    input_size: tuple[int, int]
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
    """Of all runtimes; ``time_ratio`` is the median of the paired ratios at batch 1.

    Of the original as a plain export writes it over the distilled network; by runtime,
    ``left_out`` says why there is none: the ratio is of the original as distillnet writes it, or
    there is none either, as the runtime cannot run that.
    ``busy_share`` is how much of the time other programs had the processor; None where several
    threads ran. They interrupt the longer of two runs, so that ratios come out too large.
    """

    entries: tuple[Entry, ...]
    time_ratio: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)
    busy_share: float | None = None


def interleave(
    calls: Sequence[Callable[[], Any]], seconds: float, least_runs: int, warm_up: int = 5
) -> NDArray[np.float64]:
    """Seconds (runs, calls) of calls made in turns; warming up is part of the time."""
    end = time.perf_counter() + seconds
    for i in range(warm_up):
        if i > 0 and time.perf_counter() > end - seconds / 2:
            break
        for call in calls:
            call()
    rows: list[list[float]] = []
    while len(rows) < least_runs or time.perf_counter() < end:
        row = []
        for call in calls:
            start = time.perf_counter()
            call()
            row.append(time.perf_counter() - start)
        rows.append(row)
    return np.array(rows)


def written_for(network: Deployable, format_: str, folder: Path) -> Path:
    """The network's file in a format, written once."""
    if format_ == "c" and network.written_by == PLAIN:
        raise InputError("found a plain export to C; only distillnet writes C")
    path = folder / f"{network.name}-{network.written_by.replace(' ', '-')}.{format_}"
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
    *,
    go_on: bool = False,
) -> Timing:
    """Time forms of the original and, last, the distilled network in each runtime.

    Args:
        networks: ratios are of the first; C has no plain export, and takes the first that
            distillnet writes.
        folder: for the files that runtimes read.
        go_on: leave out runtimes that cannot run what distillnet writes, rather than raise what
            they raised.

    Raises:
        DistillnetError: none of the runtimes can.
    """
    entries: list[Entry] = []
    ratios: dict[str, float] = {}
    left_out: dict[str, str] = {}
    batches = tuple(dict.fromkeys((1, settings.batch)))
    seconds = settings.seconds / (len(runtimes) * len(batches))
    done, counter = 0, open_counter()
    passed = worked = 0.0
    for runtime in runtimes:
        format_ = file_format(runtime, settings.threads)
        contenders: list[Deployable] = []
        paths, runs = [], []
        for network in networks:
            if format_ == "c" and network.written_by == PLAIN:
                continue  # only distillnet writes C
            try:
                path = written_for(network, format_, folder)
                run = open_runtime(runtime, path, settings.threads)
                run(_noise((1, *network.shape)))
            except Exception as error:  # exporters and runtimes raise whatever they like
                if network.written_by != PLAIN and not go_on:
                    raise
                left_out[runtime] = f"{type(error).__name__}: {str(error).strip()[:_REASON]}"
                if network.written_by != PLAIN:
                    contenders = []
                    break
                continue
            contenders.append(network)
            paths.append(path)
            runs.append(run)
        for batch in batches if contenders else ():
            images = [_noise((batch, *network.shape)) for network in contenders]
            calls = [lambda run=run, x=x: run(x) for run, x in zip(runs, images, strict=True)]
            began, had = time.perf_counter(), time.process_time()
            times = interleave(calls, seconds, settings.least_runs)
            passed += time.perf_counter() - began
            worked += time.process_time() - had
            for i, (network, path) in enumerate(zip(contenders, paths, strict=True)):
                low, median, high = 1e3 * np.percentile(times[:, i], (5, 50, 95))
                shape = images[i].shape
                peak = peak_mb(runtime, path, settings.threads, shape) if settings.memory else None
                used = joules_per_call(calls[i], counter, min(1.0, seconds))
                entries.append(
                    Entry(
                        network.name, network.written_by, runtime, PRECISION, network.shape[1:],
                        batch, median, low, high, len(times), _bytes(path), peak,
                        None if used is None else used / batch,
                    )
                )  # fmt: skip
            if batch == 1:
                ratios[runtime] = float(np.median(times[:, 0] / times[:, -1]))
            done += 1
            on_progress("bench", done, len(runtimes) * len(batches))
    if not entries:
        reasons = "; ".join(f"{runtime}: {why}" for runtime, why in left_out.items())
        raise DistillnetError(f"no runtime here can run these networks ({reasons})")
    busy = max(0.0, 1 - worked / passed) if settings.threads == 1 and passed > 0 else None
    return Timing(tuple(entries), ratios, left_out, busy)


def _noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Images of no meaning: the time of these layers does not depend on it."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def bench_json(
    timing: Timing, mac_ratio: float, settings: Settings, run: str = ""
) -> dict[str, Any]:
    """The content of ``bench.json``; ``run`` is what its picture calls the distilled network."""
    return {
        "run": run,
        "threads": settings.threads,
        "machine": machine(),
        "entries": [asdict(entry) for entry in timing.entries],
        "time_ratio": timing.time_ratio,
        "left_out": timing.left_out,
        "busy_share": timing.busy_share,
        "mac_ratio": mac_ratio,
        "realised": {name: ratio / mac_ratio for name, ratio in timing.time_ratio.items()},
    }
