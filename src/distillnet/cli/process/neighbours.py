"""Whether other programs keep busy the processors that PyTorch's threads count on.

Its threads share out each step and wait until all are done. Where one of them has to wait for a
processor, all do, thousands of times: beside one busy program on two processors a search takes
three times as long, and one with a single thread in place of two not twice.
"""

import os
import time
from pathlib import Path

__all__ = ["advice", "busy_processors"]

_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)  # of the times of a line: idle, and waiting for disks
_TIMES = 8  # those that make up all; guests are counted in the first two
_SAMPLE_S = 0.3
_ROOM = 0.5  # of a processor that others may use without being noticed


def busy_processors(seconds: float = _SAMPLE_S) -> float | None:
    """How many processors other programs use, while this one sleeps; None where nobody tells.

    That is outside Linux, and where this process may not run on all processors.
    """
    try:
        before, there = _idle_and_all(_STAT.read_text())
        if len(os.sched_getaffinity(0)) != there:
            return None
        time.sleep(seconds)
        after, _ = _idle_and_all(_STAT.read_text())
    except (OSError, ValueError, AttributeError):
        return None
    idle, passed = (now - then for now, then in zip(after, before, strict=True))
    return there * (1 - idle / passed) if passed > 0 else None


def _idle_and_all(stat: str) -> tuple[tuple[int, int], int]:
    """Idle time and all time since the start, in ticks, and how many processors there are.

    >>> _idle_and_all("cpu  7 0 1 90 2 0 0 0 5 0" + chr(10) + "cpu0 7 0 1 90 2 0 0 0 5 0")
    ((92, 100), 1)
    """
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    if not lines or len(lines[0]) <= _TIMES:
        raise ValueError(f"found {stat[:80]!r} in {_STAT}; expected times of processors")
    times = [int(time) for time in lines[0][1 : _TIMES + 1]]
    return (sum(times[_IDLE]), sum(times)), len(lines) - 1


def advice(busy: float | None, threads: int, processors: int) -> str | None:
    """What to tell a user whose search has to share the processors; None where it has room.

    Args:
        busy: processors that others use.
        threads: of PyTorch.

    >>> advice(0.1, threads=2, processors=2)
    >>> advice(0.9, threads=2, processors=2)[-18:]
    'OMP_NUM_THREADS=1.'
    """
    if busy is None or threads == 1 or busy + threads <= processors + _ROOM:
        return None
    left = max(1, processors - round(busy))
    return (
        f"Note: other programs are using about {round(busy)} of the {processors} processors. "
        f"PyTorch's {threads} threads then keep waiting for each other, which can make a search "
        f"several times slower. Close the other programs, or set OMP_NUM_THREADS={left}."
    )
