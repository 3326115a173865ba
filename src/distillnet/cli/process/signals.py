"""What ends a process from outside ends it as Ctrl-C does: nothing half-written stays behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ENDING", "ended_like_ctrl_c"]

# By name: there is no SIGHUP on Windows. Who sends it was the terminal that is closed.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def ended_like_ctrl_c() -> Iterator[list[int]]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt, once; the list gets the signal's number.

    Those that are ignored stay so, as ``nohup`` wants it.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not received:  # what comes while everything is put in order changes nothing
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
