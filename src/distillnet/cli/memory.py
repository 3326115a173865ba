"""How the process takes memory from the system, and whether there can be enough."""

import ctypes
import sys

from distillnet.errors import DistillnetError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

__all__ = ["check_address_space", "keep_freed_memory"]

# What PyTorch's libraries need before anything is computed; below it, their loading fails in ways
# that end the process without a word.
_ADDRESS_SPACE = 4_000_000_000

# Parameters of mallopt(3), glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let large tensors reuse memory that the process already has; for Linux with glibc.

    glibc maps every large block anew and gives it back when it is freed, and the system clears its
    pages each time: of a forward pass of GoogLeNet, 32 images at once, that is a third of the time.
    The price is a peak that is up to a fifth higher.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def check_address_space() -> None:
    """Raise DistillnetError where the process is not allowed as much memory as PyTorch needs."""
    if resource is None:
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed not in (resource.RLIM_INFINITY, -1) and allowed < _ADDRESS_SPACE:
        raise DistillnetError(
            f"this process may use {allowed / 1e9:.1f} GB of address space, and PyTorch needs "
            f"{_ADDRESS_SPACE / 1e9:.0f} to begin with; raise the limit (ulimit -v unlimited), and "
            "limit memory by a control group instead"
        )
