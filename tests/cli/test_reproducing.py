"""What `reproduce` takes for which table, and what it prints of one."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from distillnet.cli.paper_tables import print_tables
from distillnet.reproduce import Asked, Row, jobs_of, lines_of
from invocations import Cli, assert_refused

FIGURES = {
    "mac_ratio": 2.0, "mac_ratio_with_partial": 2.5, "param_ratio": 4.0, "loss_pp": 0.5,
    "worst_class_loss_pp": 1.5, "loss_ci95_pp": [-0.5, 1.5], "seconds": {"total": 3.0},
    "n_images": {"statistics": 20, "search": 20, "val": 1234, "unreadable": 0},
}  # fmt: skip
HAS = {
    "table1": ("--images", "--repeat", "--classes", "--size", "--network"),
    "table2": ("--images", "--repeat", "--size", "--network"),
    "table3": ("--network", "--removed", "--epochs"),
    "table4": ("--removed", "--epochs"),
    "readings": ("--images", "--repeat", "--size", "--network"),
}


@pytest.mark.parametrize("table", HAS)
def test_a_table_takes_what_it_listens_to(table: str, cli: Cli) -> None:
    shown = cli("reproduce", table, "--help").out
    everything = {option for options in HAS.values() for option in options}
    assert {option for option in everything if f"  {option} " in shown} == set(HAS[table])


# Options -> what the message says.
WRONG: Mapping[str, tuple[tuple[str, ...], str]] = {
    "a reading of best": (("table3", "--reading", "output"), "--method paper"),
    "readings of best": (("readings",), "--method paper"),
    "no reading": (("table3", "--method", "paper", "--reading", "x"), "price"),
    "two readings": (
        ("table3", "--method", "paper", "--reading", "output", "--reading", "activity"),
        "reproduce readings",
    ),
    "another table's network": (("table3", "--network", "squeezenet"), "mnist or cifar"),
    "TensorFlow's network": (("table2", "--network", "mnist"), "googlenet or squeezenet"),
    "another size": (("table2", "--size", "7"), "5, 10 or 15"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(
    words: tuple[str, ...], said: str, cli: Cli, home: Path
) -> None:
    done = cli("reproduce", *words, "--data", "photos", "--out", "out")
    assert_refused(done)
    assert said in done.err


def test_each_figure_has_a_title_and_its_images(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked("table2", networks=("googlenet", "squeezenet"), sizes=(5,), repeat=2)
    jobs = jobs_of(asked, [f"n{i}" for i in range(10)])
    rows = [Row(job, {**FIGURES, "inception_mac_ratio": 3.0}, "0" * 64) for job in jobs]
    lines = [json.loads(json.dumps(asdict(line))) for line in lines_of(rows)]
    values = {"table": "table2", "method": "best", "per_class": 40, "rows": lines, "out": "there"}
    print_tables(values)
    out = capsys.readouterr().out
    first, second = out.split("table2, --method best --per-class 40: ")[1:]
    assert first.startswith("inception MACs, before over after")
    assert "googlenet" in first
    assert "squeezenet" not in first
    assert second.startswith("MACs with partial removal, before over after")
    assert "squeezenet" in second
    assert all("1,234" in part for part in (first, second))
    assert max(map(len, out.splitlines())) <= 120
