"""The first screen: the mission, before against after, the front, what to trust."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillnet.job.front_points import points_of
from distillnet.job.results import finite_loss_pp
from distillnet.pages.html import signed
from distillnet.pages.report.figures import front_points, latency_bars
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Bench, Subject

__all__ = ["summary"]

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class _Row:
    label: str
    before: str
    after: str
    change: str


def summary(subject: Subject, command: str) -> tuple[Section, tuple[Absent, ...]]:
    """The section and what it lacks.

    Args:
        command: that measures times, ``distillnet bench RUN``.
    """
    result = subject.result
    absent = []
    latency = _latency(subject.bench)
    if not latency:
        absent.append(Absent("Latency by runtime", "the run was not timed", command))
    names = [c["name"] for c in result["classes"]]
    values = {
        "names": names,
        "rows": [*_accuracy_rows(result), *_cost_rows(subject), *_time_rows(latency)],
        "front": _front_chart(subject),
        "latency": latency_bars(latency) if latency else "",
        "machine": subject.bench.machine if subject.bench else "",
        "threads": subject.bench.threads if subject.bench else 0,
        "trust": _trust(result),
        "caution": _caution(subject, timed=bool(latency)),
    }
    return Section("summary", "In short", values), tuple(absent)


def _pp(value: float) -> str:
    return f"{signed(value)} points"


def _accuracy_rows(result: Mapping[str, Any]) -> list[_Row]:
    before, after = result["baseline"], result["distilled"]
    low, high = result["loss_ci95_pp"]
    rows = [
        _Row(
            "Right among the classes",
            f"{100 * before['accuracy']:.1f} %",
            f"{100 * after['accuracy']:.1f} %",
            f"{_pp(-result['loss_pp'])} (95 %: {signed(-high)} to {signed(-low)})",
        )
    ]
    name = max(
        before["per_class"],
        key=lambda n: float(before["per_class"][n]) - float(after["per_class"][n]),
    )
    rows.append(
        _Row(
            f"Class that loses most: {name}",
            f"{100 * before['per_class'][name]:.1f} %",
            f"{100 * after['per_class'][name]:.1f} %",
            _pp(-result["worst_class_loss_pp"]),
        )
    )
    rows.append(
        _Row(
            f"Right among all {result['n_classes']:,} classes",
            f"{100 * before['accuracy_open']:.1f} %",
            f"{100 * after['accuracy_open']:.1f} %",
            _pp(100 * (after["accuracy_open"] - before["accuracy_open"])),
        )
    )
    return rows


def _cost_rows(subject: Subject) -> list[_Row]:
    result = subject.result
    before, after = result["baseline"], result["distilled"]

    def row(label: str, name: str) -> _Row:
        scale, unit = (1e6, "M") if before[name] >= 1e6 else (1e3, "k")
        one, other = before[name] / scale, after[name] / scale
        ratio = f"{one / other:.2f} times fewer" if other else ""
        digits = 1 if min(one, other) >= 10 else 2
        return _Row(label, f"{one:,.{digits}f} {unit}", f"{other:,.{digits}f} {unit}", ratio)

    rows = [row("Multiply-adds (MACs) of an image", "macs")]
    if after["macs_with_partial"] < 0.999 * after["macs"]:
        rows.append(row("the same where neurons are skipped", "macs_with_partial"))
    if ratio := result["inception_mac_ratio"]:
        rows.append(_Row("of the inception modules, as the paper counts", "", "", f"{ratio:.2f} ×"))
    rows.append(row("Parameters", "params"))
    file = subject.run.directory / "model.pt2"
    whole = before["params"] * _FLOAT / 1e6
    size = file.stat().st_size / 1e6
    ratio = f"{whole / size:.2f} times smaller"
    rows.append(_Row("File (weights in 32 bits)", f"{whole:.1f} MB", f"{size:.1f} MB", ratio))
    one, other = (f"{n['input_size'][0]} × {n['input_size'][1]}" for n in (before, after))
    rows.append(_Row("Input in pixels", one, other, ""))
    return rows


def _latency(bench: Bench | None) -> list[dict[str, Any]]:
    """Of one image, by runtime: the 5th, 50th and 95th hundredth in ms.

    ``bench`` times the original in two forms, and ratios are of the first.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in bench.entries if bench else ():
        if entry.batch == 1 and entry.precision == "float32":
            side = "before" if entry.network == "original" else "after"
            row = found.setdefault(entry.runtime, {"runtime": entry.runtime})
            row.setdefault(side, (entry.p05_ms, entry.median_ms, entry.p95_ms))
    both = [row for row in found.values() if "before" in row and "after" in row]
    for row in both:
        assert bench is not None
        row["ratio"] = bench.time_ratio.get(row["runtime"], row["before"][1] / row["after"][1])
    return both


def _time_rows(latency: list[dict[str, Any]]) -> list[_Row]:
    return [
        _Row(
            f"Time of an image in {row['runtime']}",
            f"{row['before'][1]:.2f} ms",
            f"{row['after'][1]:.2f} ms",
            f"{row['ratio']:.2f} times faster",
        )
        for row in latency
    ]


def _front_chart(subject: Subject) -> str:
    """The front, or the run alone where it has none."""
    result = subject.result
    points = points_of(result, subject.front)
    return front_points(points, finite_loss_pp(result), measured=result["n_images"]["val"] > 0)


def _trust(result: Mapping[str, Any]) -> str:
    low, high = result["loss_ci95_pp"]
    n, budget = result["n_images"]["val"], finite_loss_pp(result)
    if not n:
        low, high = result["expected_ci95_pp"]
        return (
            f"The loss, {_pp(result['loss_pp'])}, is estimated from the samples of an atlas "
            f"({_pp(low)} to {_pp(high)}): no image was read, and nothing was measured."
        )
    said = (
        f"The loss, {_pp(result['loss_pp'])}, is measured on {n:,} images that neither the "
        f"statistics nor the search had seen: on more images like these it lies between {_pp(low)} "
        f"and {_pp(high)} in 95 of 100 cases"
    )
    if budget is None:
        return said + "."
    if high <= budget:
        return f"{said}, within the budget of {budget:g}."
    if low > budget:
        return f"{said}, beyond the budget of {budget:g}."
    return f"{said}; these are too few to tell whether it is within the budget of {budget:g}."


def _caution(subject: Subject, *, timed: bool) -> str:
    result = subject.result
    said = []
    if n := result["n_images"]["val"]:
        fewest = max(1, round(n / len(result["classes"])))
        said.append(
            f"Single classes are known less well: one image more or less is {100 / fewest:.1f} "
            "points."
        )
    elsewhere = "Nothing here is about other cameras, places or seasons than those of the images"
    if subject.refusals is None:
        said.append(
            f"{elsewhere}, nor about pictures that show none of the classes: the network has to "
            "call them one of these."
        )
    else:
        said.append(f"{elsewhere}.")
        said.append(
            "A rule refuses pictures that show none of the classes; how often it errs is shown "
            "under Unknowns and budget."
        )
    if not timed:
        said.append("MACs are counted, not timed: a runtime may turn fewer of them into time.")
    return " ".join(said)
