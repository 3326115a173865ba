"""What a person sees: progress on standard error, tables and JSON on standard output."""

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from distillnet.cli.front import front_text
from distillnet.cli.process.terminal import printable
from distillnet.images.left_out import described

__all__ = [
    "Shown",
    "console",
    "for_results",
    "percent",
    "print_json",
    "print_line",
    "print_table",
    "progress",
    "warn",
    "warn_left_out",
    "warn_unreadable",
]

OnProgress = Callable[[str, int, int], None]  # stage, done, of

_LABELS = {
    "collect": "Collecting statistics",
    "read": "Reading search images",
    "search": "Searching",
    "fit": "Fitting",
    "tune": "Tuning",
    "evaluate": "Evaluating",
    "unknown": "Reading other images",
    "project": "Projecting layers to pixels",
    "train": "Training",
    "bench": "Timing",
    "timings": "Timing layers",
    "scaling": "Training on local ranks",
    "rows": "Rows of the table",
    "pack": "Rounding",
    "compose": "Routes",
}
_UNITS = {
    "search": "candidates",
    "fit": "layers",
    "train": "epochs",
    "tune": "epochs",
    "bench": "pairs",
    "pack": "tries",
    "project": "layers",
    "timings": "rounds",
    "scaling": "numbers of ranks",
    "rows": "rows",
    "compose": "routes",
}  # of the others, images
# How many steps they take is known only when they are done: what is left would be a guess.
_OPEN_ENDED = frozenset(("search",))
_LINE_EVERY_S = 10.0
_WIDEST = 1000
_SLOW = 0.2  # in a second; below it, how long one takes says more
_SHOWN_UNREADABLE = 10


def console() -> Console:
    """Standard output, wide enough for tables when it is not a terminal.

    Names are printed as they are: "[red]" is no markup and ":cat:" no emoji.
    """
    return Console(
        width=None if sys.stdout.isatty() else 120,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )


def warn(message: str) -> None:
    """A line on standard error."""
    print(printable(message), file=sys.stderr, flush=True)  # noqa: T201 - this is where it is done


def warn_unreadable(messages: Sequence[str]) -> None:
    """Which images were left out, as far as a person wants to know."""
    if not messages:
        return
    images = "image" if len(messages) == 1 else "images"
    warn(f"{len(messages)} {images} could not be read and were left out:")
    for message in messages[:_SHOWN_UNREADABLE]:
        warn(f"  {message}")
    if len(messages) > _SHOWN_UNREADABLE:
        warn(f"  and {len(messages) - _SHOWN_UNREADABLE} more")


def warn_left_out(left_out: Mapping[str, int]) -> None:
    """Which images are of a kind that is not read, where there are any."""
    if left_out:
        warn(f"left out: {described(left_out)}, a kind of image that distillnet does not read")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = _UNITS.get(str(task.fields["stage"]), "images")
        return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"- {unit}/s")


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        """How long it takes yet, or where nobody can tell, how long it has taken."""
        if task.fields["stage"] not in _OPEN_ENDED:
            return super().render(task)
        return Text(f"{datetime.timedelta(seconds=int(task.elapsed or 0))}", "progress.elapsed")


class _Bars(Progress):
    """Progress bars, and below them the front of a search as far as it has grown."""

    points: Sequence[tuple[float, float, bool]] = ()

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, and below them the front."""
        yield from super().get_renderables()
        if self.points:
            encoding = (self.console.encoding or "").lower()
            yield front_text(self.points, ascii_only=not encoding.startswith("utf"))


class Shown:
    """What a person sees of work that goes on: called as (stage, done, of)."""

    def __init__(
        self,
        update: OnProgress,
        on_front: Callable[[Sequence[tuple[float, float, bool]]], None] = lambda points: None,
    ) -> None:
        self._update, self.on_front = update, on_front

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._update(stage, done, total)


@contextlib.contextmanager
def for_results() -> Iterator[None]:
    """Keep standard output for the results.

    What a library or the user's own model file has to say goes to standard error meanwhile.
    """
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def progress() -> Iterator[Shown]:
    """A progress callback: bars on a terminal, a line every ten seconds elsewhere.

    What it gives also shows the front of a search, ``on_front``, on a terminal.

    While the work goes on, standard output is standard error, see ``for_results``.
    """
    if not sys.stderr.isatty():
        with for_results():
            yield Shown(_lines())
        return
    bars = _Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        _Left(),
        console=Console(stderr=True),
    )
    tasks: dict[str, Any] = {}
    reached: dict[str, tuple[int, int]] = {}
    with for_results(), bars:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(_LABELS.get(stage, stage), total=total, stage=stage)
            elif _is_next(reached[stage], done, total):
                bars.reset(tasks[stage])
            reached[stage] = done, total
            bars.update(tasks[stage], completed=done, total=total)

        def show_front(points: Sequence[tuple[float, float, bool]]) -> None:
            bars.points = tuple(points)
            bars.refresh()

        yield Shown(update, show_front)


def _is_next(reached: tuple[int, int], done: int, total: int) -> bool:
    """Whether a stage has begun anew, of the next job of several."""
    was_done, was_total = reached
    return done < was_done or (was_done == was_total != total)


def _lines() -> OnProgress:
    latest = time.monotonic()
    started: dict[str, float] = {}
    printed: dict[str, float] = {}
    reached: dict[str, tuple[int, int]] = {}

    def update(stage: str, done: int, total: int) -> None:
        nonlocal latest
        now = time.monotonic()
        if stage in reached and _is_next(reached[stage], done, total):
            del started[stage]
            printed.pop(stage, None)
        reached[stage] = done, total
        # What is told first may be done already: a stage begins where the one before it was.
        begin = started.setdefault(stage, latest)
        latest = now
        if done < total and now - printed.get(stage, begin) < _LINE_EVERY_S:
            return
        printed[stage] = now
        spent = now - begin
        line = f"{_LABELS.get(stage, stage)}: {done}/{total}"
        if stage in _OPEN_ENDED and done < total:
            line = f"{_LABELS[stage]}: {done} {_UNITS[stage]} tried in {spent:.0f} s"
        elif spent > 0 and done > 0:
            rate = done / spent
            many = f"{rate:.1f} {_UNITS.get(stage, 'images')}/s"
            line += f", {f'{1 / rate:,.0f} s each' if rate < _SLOW else many}"
            if done < total:
                line += f", {(total - done) / rate:.0f} s left"
        warn(line)

    return update


def percent(share: float | None) -> str:
    """A share of 0 to 1 as a table has it; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def print_json(value: Any) -> None:
    """Exactly one JSON object on standard output."""
    print_line(json.dumps(value, indent=1, allow_nan=False))


def print_line(text: str) -> None:
    """A line on standard output, at once: a full disk or a closed pipe shall not wait for exit."""
    print(printable(text), flush=True)  # noqa: T201 - this is where it is done


def print_table(
    title: str, columns: list[str], rows: list[list[str]], numbers_from: int = 1
) -> None:
    """A plain table; columns from ``numbers_from`` on are numbers, right-aligned."""
    table = Table(
        title=printable(title), title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i >= numbers_from else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    out = console()
    # A terminal breaks what is wider than it; rich would cut figures off.
    out.width = max(
        out.width, out.measure(table, options=out.options.update(width=_WIDEST)).maximum
    )
    out.print(table)
