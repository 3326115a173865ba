"""What layers take on a device: the table of times by which a search makes a network fast.

Two things keep multiplications from being all that counts. Runtimes lay channels out in blocks
(ONNX Runtime's are of 8 or 16) and take slower code, or change the layout, where a layer does not
fill them; and what pools, adds, normalises or joins maps reads and writes numbers without
multiplying much. Both are told by the times of small networks, chains of convolutions and of pools,
which ``distillnet timings`` measures on this machine and its kit on any other. A table that comes
with the package stands in until then.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from statistics import fmean
from typing import Annotated

from msgspec import Meta

from distillnet.errors import InputError
from distillnet.files.documents import Count, Document, Text, read_document
from distillnet.files.results import KIT

__all__ = [
    "CHAINS",
    "FORMAT",
    "KIT_MARKER",
    "MULTIPLES",
    "POOL",
    "SIDE",
    "TimeTable",
    "built_in_times",
    "chain_name",
    "fitting_multiple",
    "known_times",
    "machine",
    "processor",
    "read_times",
    "times_cache",
    "usable_cores",
]

SIDE = 28  # of the images that chains take
MULTIPLES = (1, 2, 4, 8, 16, 32)
_WIDTHS = (19, 27, 35, 42, 53, 61, 74, 86, 99, 117)  # that a search may leave
_REPEATED = 3  # layers of one width
_USUAL = 64  # channels
POOL = 0  # stands for a kernel: a maximum pool of 3 x 3 places, one by one
_POOLS = 8
_BLOCKS = 4  # that a layer should have
_ALIKE = 1.02  # times that no measurement tells apart
FORMAT = 1
_AT_MOST = 2**20  # bytes of a table, which has 3,000
KIT_MARKER = KIT.marker
_REMEDY = "measure again with `distillnet timings`, or with a new kit"

Chain = tuple[tuple[int, int, int], ...]  # layers: channels in, out, kernel or POOL


def chain_name(chain: Chain) -> str:
    """How a table calls a chain.

    >>> chain_name(((64, 32, 1), (32, 32, POOL)))
    '64-32x1_32pool'
    """
    return "_".join(
        f"{n_out}pool" if kernel == POOL else f"{n_in}-{n_out}x{kernel}"
        for n_in, n_out, kernel in chain
    )


def _width_chain(width: int) -> Chain:
    return ((width, width, 3),) * _REPEATED


def _rounded(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


_ONE: Chain = ((_USUAL, _USUAL, 1),)
_POOLED: Chain = _ONE + ((_USUAL, _USUAL, POOL),) * _POOLS
CHAINS: Mapping[str, Chain] = {
    chain_name(chain): chain
    for chain in (
        _ONE,
        _POOLED,
        *map(_width_chain, sorted({_rounded(w, m) for w in _WIDTHS for m in MULTIPLES})),
    )
}


@dataclass(frozen=True)
class TimeTable:
    """Times of ``CHAINS`` on a device, one image of ``SIDE`` x ``SIDE`` at once.

    Attributes:
        machine: the processor.
        runtime: and its version.
        seconds: the median by the chain's name.
    """

    machine: str
    runtime: str
    threads: int
    seconds: Mapping[str, float]

    @property
    def element(self) -> float:
        """How many multiply-adds take as long as a pool does for one of its numbers."""
        pools = self.seconds[chain_name(_POOLED)] - self.seconds[chain_name(_ONE)]
        return max(0.0, pools / (SIDE**2 * _USUAL * _POOLS) / self.mac_s)

    @property
    def mac_s(self) -> float:
        """How long a multiply-add of a convolution of usual width takes, in seconds."""
        several = _width_chain(_USUAL)
        macs = SIDE**2 * sum(n_in * n_out * kernel**2 for n_in, n_out, kernel in several)
        return self.seconds[chain_name(several)] / macs

    @property
    def multiple(self) -> int:
        """The multiple to which widths that a search may leave are rounded up for least time.

        The largest of those that take as long: more channels for nothing.
        """

        def mean(multiple: int) -> float:
            chains = (_width_chain(_rounded(width, multiple)) for width in _WIDTHS)
            return fmean(self.seconds[chain_name(chain)] for chain in chains)

        times = {multiple: mean(multiple) for multiple in MULTIPLES}
        least = min(times.values())
        return max(multiple for multiple in MULTIPLES if times[multiple] <= _ALIKE * least)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, "side": SIDE} | asdict(self), indent=1) + "\n"


def fitting_multiple(multiple: int, widths: Sequence[int]) -> int:
    """A multiple for layers of such widths: halved until half of them hold four of it.

    Where layers are narrow, whole blocks would leave nothing to remove.

    >>> fitting_multiple(16, [64, 128, 16]), fitting_multiple(16, [8, 24, 24])
    (16, 4)
    """
    while multiple > 1 and 2 * sum(width >= _BLOCKS * multiple for width in widths) < len(widths):
        multiple //= 2
    return multiple


class _Document(Document, frozen=True):
    """A file of times; a kit that was stopped has written some of them."""

    format: int
    side: Annotated[int, Meta(ge=SIDE, le=SIDE)]
    machine: Text
    runtime: Text
    threads: Count
    seconds: dict[Text, float]


def read_times(path: Path) -> TimeTable:
    """A table from a file that ``timings`` or its kit wrote.

    Raises:
        InputError: there is none, it is damaged, or not all of it is measured.
    """
    found = read_document(path, _Document, _REMEDY, format_=FORMAT, at_most=_AT_MOST)
    if missing := [name for name in CHAINS if name not in found.seconds]:
        raise InputError(
            f"{path} holds the times of {len(CHAINS) - len(missing)} networks; expected all of "
            f"{len(CHAINS)}. Run measure.py again: it goes on where it stopped"
        )
    seconds = {name: found.seconds[name] for name in CHAINS}
    if wrong := [name for name in CHAINS if not seconds[name] > 0]:
        raise InputError(
            f"{path} says that the network {wrong[0]} takes {seconds[wrong[0]]} s; expected more "
            "than 0. Measure again"
        )
    return TimeTable(found.machine, found.runtime, found.threads, seconds)


@cache
def built_in_times() -> TimeTable:
    """The table that comes with the package: ONNX Runtime on one core of a server."""
    with as_file(files("distillnet.cut").joinpath("times.json")) as path:
        return read_times(path)


def times_cache() -> Path:
    """Where ``timings`` keeps this machine's table."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "distillnet" / "times.json"


def known_times() -> TimeTable:
    """This machine's table where ``timings`` has measured it, else the built-in one."""
    try:
        table = read_times(times_cache())
    except InputError:
        return built_in_times()
    # Whatever part of its cores this process may use: that changes from call to call.
    return table if table.machine.rpartition(",")[0] == processor() else built_in_times()


def machine() -> str:
    """The processor's name, and how many cores this process may use."""
    return f"{processor()}, {usable_cores()} cores"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def usable_cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
