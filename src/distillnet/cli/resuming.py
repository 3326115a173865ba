"""Searches that are interrupted: saying what is kept of them, and how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.groups import OUTPUT
from distillnet.cli.output import warn
from distillnet.errors import InputError
from distillnet.job.layout import UNFINISHED

__all__ = ["ResumeOptions", "saying_what_is_kept", "tell_best"]


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """What to do with what an interrupted search left in --out."""

    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from where an interrupted search in --out was; give the same options.",
            show_default="off",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    best_so_far: Annotated[
        bool,
        typer.Option(
            "--best-so-far",
            help="Take the best network that an interrupted search in --out has found, without "
            "searching on.",
            show_default="off",
            rich_help_panel=OUTPUT,
        ),
    ] = False


@contextmanager
def saying_what_is_kept(out: Path, options: ResumeOptions) -> Iterator[None]:
    """Within, whatever ends a search, the user is told what is left of it."""
    folder = out / UNFINISHED
    before = _kept(folder)
    if before and not (options.resume or options.best_so_far):
        warn(
            f"{folder} holds what an interrupted search found, which this one replaces; --resume "
            "would go on from there, --best-so-far take the best of it"
        )
    try:
        yield
    except BaseException as error:
        n = _kept(folder)
        if n > before or (n and not isinstance(error, InputError)):
            results = "1 result" if n == 1 else f"{n} results"
            warn(
                f"{results} of the search {'is' if n == 1 else 'are'} kept in {folder}. The same "
                "command with --resume goes on from there; with --best-so-far it takes the best "
                "network so far."
            )
        raise


def _kept(folder: Path) -> int:
    return len(list(folder.glob("*.safetensors")))


def tell_best(ratio: float, loss_pp: float) -> None:
    """Say what a search would return if it were stopped now."""
    warn(f"Best so far: {ratio:.2f} times less work, {loss_pp:+.1f} points of loss expected")
