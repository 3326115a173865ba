"""Running the command line in this process."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from distillnet.cli import app, main

__all__ = ["every_command", "run_command"]


def every_command(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """The words of each command that does something, and the command; groups are gone into."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*words, name))
        else:
            yield (*words, name), command


def run_command(monkeypatch: pytest.MonkeyPatch, *args: str, status: int = 0) -> None:
    """Run ``distillnet`` with the arguments; it has to leave with ``status``."""
    monkeypatch.setattr(sys, "argv", ["distillnet", *args])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert (leaving.value.code or 0) == status
