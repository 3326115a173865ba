"""What the machine says of itself: the most multiply-adds it does a second, joules it has used."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

__all__ = ["EnergyCounter", "joules_per_call", "open_counter", "peak_macs_per_s"]

_POWERCAP = Path("/sys/class/powercap")
# Of a convolution of 3 x 3: large enough for a library's best, small enough for the caches.
_CHANNELS, _SIDE, _KERNEL = 128, 56, 3


def peak_macs_per_s(threads: int, seconds: float = 0.5) -> float:
    """The most float32 multiply-adds a second that a large convolution reaches here.

    That is the peak that can be had; the processor's data sheet promises more. A matrix product
    would not do: on some processors its library leaves half of the width of vectors unused.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    layout = torch.channels_last
    x = torch.ones(1, _CHANNELS, _SIDE, _SIDE).contiguous(memory_format=layout)
    weight = torch.ones(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL).contiguous(memory_format=layout)
    try:
        with torch.inference_mode():
            F.conv2d(x, weight, padding=_KERNEL // 2)
            quickest, end = float("inf"), time.perf_counter() + seconds
            while (start := time.perf_counter()) < end or quickest == float("inf"):
                F.conv2d(x, weight, padding=_KERNEL // 2)
                quickest = min(quickest, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return (_CHANNELS * _KERNEL * _SIDE) ** 2 / quickest


@dataclass(frozen=True)
class EnergyCounter:
    """The processor packages' own counters (RAPL), which wrap around at ``ranges_uj``."""

    files: tuple[Path, ...]
    ranges_uj: tuple[int, ...]

    def read_uj(self) -> tuple[int, ...]:
        """Microjoules so far, by package."""
        return tuple(int(file.read_text()) for file in self.files)

    def joules_since(self, before_uj: tuple[int, ...]) -> float:
        """Joules of all packages since ``read_uj``, if none has wrapped around twice.

        All of them: other work and idling are counted, memory on most machines is not.
        """
        pairs = zip(self.read_uj(), before_uj, self.ranges_uj, strict=True)
        return 1e-6 * sum((now - then) % (range_ + 1) for now, then, range_ in pairs)


def open_counter(folder: Path = _POWERCAP) -> EnergyCounter | None:
    """The counters of Linux's powercap, or None where there are none or they are root's alone."""
    files, ranges = [], []
    # intel-rapl:0 is a package (of AMD's, too); intel-rapl:0:0 is a part of it.
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            int((zone / "energy_uj").read_text())
            ranges.append(int((zone / "max_energy_range_uj").read_text()))
        except (OSError, ValueError):
            return None
        files.append(zone / "energy_uj")
    return EnergyCounter(tuple(files), tuple(ranges)) if files else None


def joules_per_call(
    call: Callable[[], object], counter: EnergyCounter | None, seconds: float = 1.0
) -> float | None:
    """Joules that the machine uses for a call, over as many as ``seconds`` take; None unmeasured.

    The counters are renewed every millisecond or so: a single call would be mostly error.
    """
    if counter is None:
        return None
    before, calls, end = counter.read_uj(), 0, time.perf_counter() + seconds
    while calls == 0 or time.perf_counter() < end:
        call()
        calls += 1
    return counter.joules_since(before) / calls
