"""What ends a process from outside ends it as Ctrl-C does: nothing half-written stays behind."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ENDING", "ended_like_ctrl_c"]

# By name: there is no SIGHUP on Windows. Who sends it was the terminal that is closed.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def _is_being_interrupted() -> bool:
    """Whether what is running now is there because of a KeyboardInterrupt."""
    cause = sys.exception()
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


@contextmanager
def ended_like_ctrl_c() -> Iterator[list[int]]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt; the list gets the signals' numbers.

    What comes while everything is put in order changes nothing. An interrupt that a library lost,
    as Python's own is lost in a ``__del__``, does not make the process deaf to the next signal.
    Those that are ignored stay so, as ``nohup`` wants it.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _is_being_interrupted():
            received.append(number)
            raise KeyboardInterrupt

    before = {}
    try:
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    except ValueError:  # not in the main thread
        pass
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
