"""What `reproduce` shows of a table: each row as it is measured, and all beside the paper's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distillnet.cli.output import print_line, print_table, warn

if TYPE_CHECKING:
    from distillnet.reproduce import Line

__all__ = ["print_tables", "tell_line"]


def tell_line(line: "Line", known: bool) -> None:
    """Say what a job gave, while others go on."""
    row = line.row if line.classes is None else f"{line.row} ({', '.join(line.classes)})"
    warn(
        f"{line.network}, {row}: {line.what} {line.ours:.2f}, the paper's {line.paper:g}, at a "
        f"loss of {line.loss_pp:+.2f} points" + (", kept from before" if known else "")
    )


def print_tables(values: dict[str, Any]) -> None:
    """Print the lines of a table, those of each figure under a title of their own."""
    lines = values["rows"]
    for what in dict.fromkeys(line["what"] for line in lines):
        _print_lines(values, what, [line for line in lines if line["what"] == what])
    for line in lines:
        if line["modules"]:
            _print_modules(line)
        if line["ms"]:
            before, after = line["ms"]
            print_line(f"{line['network']}, {line['row']} removed: {before:.3f} to {after:.3f} ms")
    print_line(
        "Loss: on images used for nothing else, as many as given for each set; in brackets its "
        "95 % interval."
    )
    print_line("±: standard deviation over the sets.")
    print_line(f"Kept in {values['out']}")


def _print_lines(values: dict[str, Any], what: str, lines: Sequence[dict[str, Any]]) -> None:
    readings = len({line["reading"] for line in values["rows"]}) > 1
    sets = max(line["sets"] for line in lines) > 1
    left = "classes removed" if values["table"] in ("table3", "table4") else "classes"
    columns = ["reading"] if readings else [left, *(["sets"] if sets else [])]
    rows = []
    for line in lines:
        shown = [line["reading"]] if readings else [line["row"], *([line["sets"]] if sets else [])]
        rows.append(
            [
                line["network"], *map(str, shown),
                f"{line['paper']:g}", "-" if line["ideal"] is None else f"{line['ideal']:g}",
                f"{line['ours']:.2f}{_spread(line, 'ours_deviation')}",
                "better" if line["better"] else "worse",
                f"{line['mac_ratio']:.2f}x", f"{line['param_ratio']:.2f}x", _loss(line),
                f"{line['worst_class_loss_pp']:+.2f}", f"{line['n_images']['val']:,.0f}",
                f"{line['seconds']:.0f}",
            ]
        )  # fmt: skip
    how = lines[0]["reading"]
    told = "" if readings or how == "price" else f" --reading {how}"
    told += f" --per-class {values['per_class']}" if values["per_class"] else ""
    print_table(
        f"{values['table']}, --method {values['method']}{told}: {what}",
        ["network", *columns, "paper", "ideal", "here", "", "MACs", "params", "loss, pp",
         "worst class", "images", "seconds"],
        rows,
    )  # fmt: skip


def _loss(line: dict[str, Any]) -> str:
    if line["sets"] > 1:
        return f"{line['loss_pp']:+.2f}{_spread(line, 'loss_deviation_pp')}"
    low, high = line["loss_ci95_pp"]
    return f"{line['loss_pp']:+.2f} ({low:+.2f} to {high:+.2f})"


def _spread(line: dict[str, Any], name: str) -> str:
    return f" ± {line[name]:.2f}" if line["sets"] > 1 else ""


def _print_modules(line: dict[str, Any]) -> None:
    from distillnet.reproduce.paper import MODULES

    found = line["modules"]
    kinds = {"paper": found["paper"], "here, neurons": found["ours"], "here, MACs": found["macs"]}
    print_table(
        f"{line['network']}, {line['row']} classes, {line['reading']}: each inception module, "
        "before over after",
        ["", *(f"I{name.upper()}" for name in MODULES)],
        [
            [name, *("-" if x is None else f"{x:.2f}" for x in values)]
            for name, values in kinds.items()
        ],
        1,
    )
    classes = ", ".join(line["classes"]) if line["classes"] else f"{line['sets']} sets"
    print_line(
        f"{classes}: {found['skipped_millions']:,.0f} million MACs of the modules are skipped; "
        f"the paper's: {found['paper_skipped_millions']:,}"
    )
