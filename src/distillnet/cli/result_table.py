"""The figures of a run, for a person."""

import math
from collections.abc import Mapping
from typing import Any

from distillnet.cli.output import console, print_table
from distillnet.cli.process.terminal import printable
from distillnet.search.budget import in_points

__all__ = ["print_result"]


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
            f"{n} images used for nothing else; worst class "
            f"{result['worst_class_loss_pp']:+.2f}."
        )
    expected, (least, most) = result["expected_loss_pp"], result["expected_ci95_pp"]
    lines.append(
        f"The search had expected {expected:+.2f} (95 % interval {least:+.2f} to {most:+.2f}); "
        f"it was stopped by {result['stopped_by']}."
    )
    if before["accuracy_open"] is not None and after["accuracy_open"] is not None:
        lines.append(
            f"Among all {result['n_classes']:,} classes, and not only those of the mission, "
            f"{100 * before['accuracy_open']:.1f} % of the images were right before the cut and "
            f"{100 * after['accuracy_open']:.1f} % after it; the written network no longer has the "
            "other classes' outputs."
        )
    budget = allowed_loss_pp(result)
    if n and low <= budget < high:
        lines.append(
            f"{n} images are too few to tell whether the loss is within {in_points(budget)}."
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
    told = f"Runtimes that do whole channels need {result['mac_ratio']:.2f} x fewer multiply-adds"
    if compact is not None:
        told += f"; the C that export writes needs {compact:.2f} x fewer"
        told += f" ({missions:.2f} x as one of several missions)" if missions is not None else ""
    neurons = result["mac_ratio_with_partial"]
    return [f"{told}; {neurons:.2f} x needs a runtime that skips single neurons."]


def _enough_images(n: int, low: float, high: float, budget: float) -> str:
    """How many images would tell, were the loss what it seems: intervals shrink by their root."""
    loss = (low + high) / 2
    if loss >= budget:
        return ""
    needed = math.ceil(n * ((high - loss) / (budget - loss)) ** 2)
    return f" About {needed:,} would be enough, if the loss is what it seems."


def _cost_row(label: str, before: float, after: float, digits: int) -> list[str]:
    ratio = before / after if after else math.inf
    return [label, f"{before:.{digits}f}", f"{after:.{digits}f}", f"{ratio:.2f} x"]


def _accuracy_row(label: str, before: float, after: float) -> list[str]:
    change = 100 * (after - before)
    return [label, f"{100 * before:.1f} %", f"{100 * after:.1f} %", f"{change:+.1f} pp"]
