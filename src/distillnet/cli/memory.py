"""How the process takes memory from the system."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

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
