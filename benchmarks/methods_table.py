"""The Markdown table of methods.py."""

import statistics
from collections.abc import Sequence

from methods_jobs import Job, Row, Setting, find

HEADER = (
    *("network", "classes", "method", "MACs, every runtime", "MACs with partial removal"),
    *("parameters", "accuracy", "loss in points, 95 % interval", "worst class", "input", "seconds"),
    "commit",
)


def table(rows: Sequence[Row], jobs: Sequence[Job], setting: Setting) -> str:
    """A Markdown table of the jobs that have rows, in the order of the jobs."""
    by_name: dict[str, list[Row]] = {}
    for job in jobs:
        if (row := find(rows, job, setting)) is not None:
            by_name.setdefault(job.name, []).append(row)
    shown = [row for of_job in by_name.values() for row in of_job]
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(cells(of_job))} |" for of_job in by_name.values()]
    return "\n\n".join([*notes(shown, setting), "\n".join(lines)])


def notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    """What one has to know to read the table."""
    few = setting.images_per_class
    text = [
        f"Budget: {setting.max_loss:g} pp of closed-set accuracy on the search images. "
        "Accuracy and loss are of the val images, which nothing else read. MACs and parameters: "
        "whole network over what is left, without the scores of other classes; partial removal "
        "saves time only where a runtime skips single neurons."
    ]
    if few is not None:
        text.append(f"**A quick look at {few} images per class: no figure to quote.**")
    if versions := sorted({row["torch_pruning"] for row in rows if "torch_pruning" in row}):
        steps = "one step" if setting.pruning_steps == 1 else f"{setting.pruning_steps} steps"
        text.append(
            f"Torch-Pruning {', '.join(versions)}: global pruning in {steps}, no training but "
            "where a name says it, the largest ratio within the budget by "
            f"{setting.search_steps} steps of binary search. It "
            "removes whole channels only and leaves the input's side as it is. A local response "
            "normalisation then runs over the channels that are left, which are other neighbours "
            "than before."
        )
    return text


def cells(rows: Sequence[Row]) -> list[str]:
    """One line of the table: a row, or mean and range of the rows of several seeds."""
    good = [row for row in rows if "failed" not in row]
    failures = [row["failed"].replace("|", "/") for row in rows if "failed" in row]
    method = rows[0]["method"]
    if len(good) > 1:
        method += f" ({len(good)} seeds: mean, range)"
    if failures:
        method += f" **failed: {failures[0]}**"
    first = [rows[0]["network"], str(rows[0]["classes"]), method]
    if not good:
        return first + ["-"] * (len(HEADER) - len(first))

    def figure(name: str, form: str, unit: str = "", scale: float = 1.0) -> str:
        values = [scale * row[name] for row in good]
        text = f"{statistics.mean(values):{form}}{unit}"
        if len(values) > 1:
            text += f" ({min(values):{form}} to {max(values):{form}})"
        return text

    loss = figure("loss_pp", "+.1f")
    if len(good) == 1:
        low, high = good[0]["loss_ci95_pp"]
        loss += f" ({low:+.1f} to {high:+.1f})"
    before = 100 * statistics.mean(row["accuracy_before"] for row in good)  # equal for all seeds
    return [
        *first,
        figure("mac_ratio", ".2f", "x"),
        figure("mac_ratio_with_partial", ".2f", "x"),
        figure("param_ratio", ".2f", "x"),
        f"{before:.1f} -> {figure('accuracy_after', '.1f', ' %', 100)}",
        loss,
        figure("worst_class_loss_pp", ".1f"),
        "/".join(dict.fromkeys(str(row["input_side"]) for row in good)),
        figure("seconds", ".0f"),
        "/".join(dict.fromkeys(row.get("commit", "-") for row in good)),
    ]
