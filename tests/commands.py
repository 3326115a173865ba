"""Running the command line in this process."""

import sys

import pytest

from distillnet.cli import main

__all__ = ["run_command"]


def run_command(monkeypatch: pytest.MonkeyPatch, *args: str, status: int = 0) -> None:
    """Run ``distillnet`` with the arguments; it has to leave with ``status``."""
    monkeypatch.setattr(sys, "argv", ["distillnet", *args])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert (leaving.value.code or 0) == status
