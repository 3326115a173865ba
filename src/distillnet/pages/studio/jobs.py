"""Long work in the background: one job at a time, with progress, that can be cancelled."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from distillnet.errors import DistillnetError, InputError

__all__ = ["Job", "Jobs"]

_PATIENCE_S = 60  # until work that was cancelled comes to its next step

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What is known of the latest work.

    Attributes:
        state: "idle", "running", "done", "failed" or "cancelled".
        result: of work that is done; ``message`` says what went wrong with work that failed.
    """

    number: int = 0
    what: str = ""
    state: str = "idle"
    stage: str = ""
    done: int = 0
    of: int = 0
    message: str = ""
    result: Any = None


class _Cancelled(BaseException):  # no error: nothing on the way shall handle it as one
    pass


class Jobs:
    """Runs one job at a time in a thread of its own."""

    def __init__(self) -> None:
        self._lock, self._replacing = threading.Lock(), threading.Lock()
        self._latest = Job()
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> Job:
        """The job that runs, or the last that did."""
        with self._lock:
            return self._latest

    def start(self, what: str, work: Callable[[Progress], Any]) -> Job:
        """Begin work, which is given a progress callback; InputError while other work goes on."""
        with self._lock:
            if self._latest.state == "running":
                raise InputError(f"{self._latest.what} is not done yet; wait, or cancel it")
            self._cancel.clear()
            self._latest = Job(self._latest.number + 1, what, "running")
            self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
            self._thread.start()
            return self._latest

    def replace(self, what: str, work: Callable[[Progress], Any]) -> Job:
        """Begin work in place of what goes on, which is cancelled and waited for."""
        with self._replacing:
            self.cancel()
            self.wait(_PATIENCE_S)
            return self.start(what, work)

    def cancel(self) -> None:
        """Ask the work to end; it does at its next step, and leaves nothing behind."""
        self._cancel.set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the work has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, work: Callable[[Progress], Any]) -> None:
        try:
            self._told("", 0, 0)
            result = work(self._told)
            self._told("", 0, 0)
            self._set(state="done", result=result)
        except _Cancelled:
            self._set(state="cancelled")
        except (DistillnetError, OSError) as error:
            self._set(state="failed", message=str(error))
        except Exception as error:  # noqa: BLE001 - the page shows it, the studio goes on
            self._set(state="failed", message=f"{type(error).__name__}: {error}")

    def _told(self, stage: str, done: int, of: int) -> None:
        if self._cancel.is_set():
            raise _Cancelled
        self._set(stage=stage, done=done, of=of)

    def _set(self, **values: Any) -> None:
        with self._lock:
            self._latest = replace(self._latest, **values)
