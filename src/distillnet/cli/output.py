"""What a person sees: progress on standard error, tables and JSON on standard output."""

import contextlib
import datetime
import json
import math
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
    "print_json",
    "print_line",
    "print_result",
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
}
_UNITS = {
    "search": "candidates",
    "fit": "layers",
    "train": "epochs",
    "tune": "epochs",
    "bench": "pairs",
    "project": "layers",
    "timings": "rounds",
    "scaling": "numbers of ranks",
}  # of the others, images
# How many steps they take is known only when they are done: what is left would be a guess.
_OPEN_ENDED = frozenset(("search",))
_LINE_EVERY_S = 10.0
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
def progress() -> Iterator[Shown]:
    """A progress callback: bars on a terminal, a line every ten seconds elsewhere.

    What it gives also shows the front of a search, ``on_front``, on a terminal.

    While the work goes on, standard output is standard error: it belongs to the results, whatever
    a library or the user's own model file has to say.
    """
    if not sys.stderr.isatty():
        with contextlib.redirect_stdout(sys.stderr):
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
    with contextlib.redirect_stdout(sys.stderr), bars:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(_LABELS.get(stage, stage), total=total, stage=stage)
            bars.update(tasks[stage], completed=done)

        def show_front(points: Sequence[tuple[float, float, bool]]) -> None:
            bars.points = tuple(points)
            bars.refresh()

        yield Shown(update, show_front)


def _lines() -> OnProgress:
    latest = time.monotonic()
    started: dict[str, float] = {}
    printed: dict[str, float] = {}

    def update(stage: str, done: int, total: int) -> None:
        nonlocal latest
        now = time.monotonic()
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
            line += f", {rate:.1f} {_UNITS.get(stage, 'images')}/s"
            if done < total:
                line += f", {(total - done) / rate:.0f} s left"
        warn(line)

    return update


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
    console().print(table)


def print_result(result: Mapping[str, Any]) -> None:
    """The figures of a ``result.json``, as a table."""
    from distillnet.job.results import allowed_loss_pp

    before, after = result["baseline"], result["distilled"]
    rows = [
        _cost_row("MACs (M)", before["macs"] / 1e6, after["macs"] / 1e6, 2),
        _cost_row(
            "MACs with partial removal (M)",
            before["macs"] / 1e6,
            after["macs_with_partial"] / 1e6,
            2,
        ),
        _cost_row("Parameters (k)", before["params"] / 1e3, after["params"] / 1e3, 1),
        [
            "Input",
            *("x".join(map(str, network["input_size"])) for network in (before, after)),
            "",
        ],
        _accuracy_row("Accuracy among the classes", before["accuracy"], after["accuracy"]),
    ]
    for name, share in before["per_class"].items():
        rows.append(_accuracy_row(f"  {name}", share, after["per_class"][name]))
    names = ", ".join(entry["name"] for entry in result["classes"])
    print_table(f"{result['model']} for {names}", ["", "original", "distilled", ""], rows)
    low, high = result["loss_ci95_pp"]
    n = result["n_images"]["val"]
    lines = []
    if n:
        lines.append(
            f"Loss {result['loss_pp']:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}) on "
            f"{n} images that nothing else was made of; worst class "
            f"{result['worst_class_loss_pp']:+.2f}."
        )
    expected, (least, most) = result["expected_loss_pp"], result["expected_ci95_pp"]
    lines.append(
        f"The search had expected {expected:+.2f} (95 % interval {least:+.2f} to {most:+.2f}); "
        f"it was stopped by {result['stopped_by']}."
    )
    if before["accuracy_open"] is not None and after["accuracy_open"] is not None:
        lines.append(
            f"Told from all {result['n_classes']:,} classes, and not only from each other, "
            f"{100 * before['accuracy_open']:.1f} % of the images were right before the cut and "
            f"{100 * after['accuracy_open']:.1f} % after it; the written network no longer has the "
            "other classes' outputs."
        )
    budget = allowed_loss_pp(result)
    if n and low <= budget < high:
        lines.append(
            f"{n} images are too few to tell whether the loss is within {budget:g} points."
            + _enough_images(n, low, high, budget)
        )
    if result["loss_pp"] > budget >= result["search"]["loss_pp"]:
        lines.append(
            "More was lost than the search images had shown; a smaller --max-loss leaves room for "
            "that" + (", with --from RUN in no time." if result["method"] == "best" else ".")
        )
    if result["inception_mac_ratio"] is not None:
        lines.append(
            f"Inception modules alone, partial removal counted, as in the paper: "
            f"{result['inception_mac_ratio']:.2f} x."
        )
    lines += _saved_where(result)
    lines += [f"Note: {warning}" for warning in result["warnings"]]
    out = console()
    for line in lines:
        out.print(printable(line))


def _saved_where(result: Mapping[str, Any]) -> list[str]:
    """Which runtimes save what, where neurons were removed from maps that stay."""
    if result["mac_ratio_with_partial"] <= 1.02 * result["mac_ratio"]:
        return []
    compact, missions = result["mac_ratio_c"], result["mac_ratio_c_switchable"]
    told = f"Runtimes of whole channels save {result['mac_ratio']:.2f} x of the multiply-adds"
    if compact is not None:
        told += f"; the C that export writes saves {compact:.2f} x"
        told += f" ({missions:.2f} x as one of several missions)" if missions is not None else ""
    neurons = result["mac_ratio_with_partial"]
    return [f"{told}; {neurons:.2f} x would take a runtime that skips single neurons."]


def _enough_images(n: int, low: float, high: float, budget: float) -> str:
    """How many images would tell, were the loss what it seems: intervals shrink by their root."""
    loss = (low + high) / 2
    if loss >= budget:
        return ""
    needed = math.ceil(n * ((high - loss) / (budget - loss)) ** 2)
    return f" About {needed:,} would, were the loss what it seems."


def _cost_row(label: str, before: float, after: float, digits: int) -> list[str]:
    ratio = before / after if after else math.inf
    return [label, f"{before:.{digits}f}", f"{after:.{digits}f}", f"{ratio:.2f} x"]


def _accuracy_row(label: str, before: float, after: float) -> list[str]:
    change = 100 * (after - before)
    return [label, f"{100 * before:.1f} %", f"{100 * after:.1f} %", f"{change:+.1f} pp"]
