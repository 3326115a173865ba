"""An object that must never be unpickled."""

from pathlib import Path

__all__ = ["Evil"]


class Evil:
    """Unpickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)
