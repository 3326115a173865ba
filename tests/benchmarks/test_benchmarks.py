"""The tables that benchmarks print, of made-up results; no benchmark is run here."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def table3() -> Iterator[ModuleType]:
    yield from _imported("table3")


@pytest.fixture(scope="module")
def methods() -> Iterator[ModuleType]:
    if not (BENCHMARKS / "methods.py").exists():
        pytest.skip("there is no benchmarks/methods.py")
    try:
        yield from _imported("methods")
    except ModuleNotFoundError as error:
        if error.name != "torch_pruning":
            raise
        pytest.skip("torch-pruning, which benchmarks/methods.py compares with, is not installed")


def _imported(name: str) -> Iterator[ModuleType]:
    """A benchmark imported by its path: the folder is not a package.

    The benchmarks beside it are found as they are when it runs as a script.
    """
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            for path in BENCHMARKS.glob("*.py"):
                sys.modules.pop(path.stem, None)


def _columns(text: str) -> list[dict[str, str]]:
    """The rows of the Markdown table in a text, each by the names of the columns."""
    lines = [line for line in text.split("\n") if line.startswith("|")]
    header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rule == ["---"] * len(header)
    return [dict(zip(header, row, strict=True)) for row in rows]


# Table 3 ------------------------------------------------------------------------------------


def _row(table3: ModuleType, network: str, k: int, params: int, macs: int) -> Any:
    """Of 2,000 parameters and 10,000 MACs, ``params`` and ``macs`` are left."""
    result = {
        "baseline": {"params": 2_000, "macs": 10_000, "macs_with_partial": 10_000},
        "distilled": {"params": params, "macs": macs, "macs_with_partial": 1},
        "loss_pp": 0.25,
        "loss_ci95_pp": [-0.5, 1.0],
        "worst_class_loss_pp": -1.5,
        "seconds": {"collect": 7.0, "search": 8.0, "total": 41.6},
    }
    return table3.Row(table3.Setting(network, k, "paper", 1.0, "abc"), result)


def test_table3_puts_every_number_in_its_column(table3: ModuleType) -> None:
    rows = [_row(table3, "mnist", 8, 500, 9_000), _row(table3, "mnist", 3, 790, 6_543)]
    three, eight = _columns(table3.table(rows))
    assert three == {
        "classes removed": "3",
        "parameters removed, %": "60.5",  # 1 - 790 / 2,000
        "paper's, %": "30",
        "MACs removed, %": "34.6",  # 1 - 6,543 / 10,000, whole channels only
        "twice the ideal, %": "60, yes",
        "loss, pp (95 %)": "+0.25 (-0.50 to +1.00)",
        "worst class, pp": "-1.50",
        "seconds": "42",
    }
    assert (eight["classes removed"], eight["paper's, %"]) == ("8", "71")
    assert (eight["parameters removed, %"], eight["MACs removed, %"]) == ("75.0", "10.0")


def test_table3_compares_with_the_paper_per_network(table3: ModuleType) -> None:
    printed = {
        network: [
            _columns(table3.table([_row(table3, network, k, 1_000, 5_000)]))[0]["paper's, %"]
            for k in range(1, 9)
        ]
        for network in ("mnist", "cifar")
    }
    assert printed == {
        "mnist": ["10", "20", "30", "40", "49", "49", "57", "71"],
        "cifar": ["10", "20", "30", "40", "50", "60", "68", "76"],
    }


@pytest.mark.parametrize(
    ("k", "removed", "expected"),
    [(1, 20.0, "20, yes"), (1, 19.9, "20, no"), (4, 79.0, "80, no"), (5, 99.0, "-")],
)
def test_twice_the_ideal(table3: ModuleType, k: int, removed: float, expected: str) -> None:
    assert table3.twice_the_ideal(k, removed) == expected


def test_table3_runs_the_command_on_the_classes_that_remain(table3: ModuleType) -> None:
    setting = table3.Setting("cifar", 7, "paper", 1.0, "abc")
    words = table3.command(setting, Path("w.safetensors"), Path("data"), Path("run"))
    assert words[1:5] == ["-m", "distillnet", "distill", "zoo:tf_cifar"]
    options = dict(zip(words[5::2], words[6::2], strict=False))
    assert options["--classes"] == "7,8,9"
    assert Path(options["--data"]) == Path("data/cifar10")
    assert (options["--method"], options["--max-loss"]) == ("paper", "1")


def test_table3_reads_the_rows_it_wrote(table3: ModuleType, tmp_path: Path) -> None:
    rows = [_row(table3, "mnist", k, 1_000 - k, 5_000) for k in (2, 1)]
    table3.write_rows(rows, tmp_path / "rows.jsonl")
    assert table3.read_rows(tmp_path / "rows.jsonl") == rows
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["setting"]["k"] for line in lines] == [2, 1]


# Methods ------------------------------------------------------------------------------------


def _measured(methods: ModuleType, job: Any, **values: Any) -> dict[str, Any]:
    """A row of a job, every figure another number."""
    return {
        **methods.identity(job, _setting(methods)),
        "mac_ratio": 1.26,
        "mac_ratio_with_partial": 1.51,
        "param_ratio": 1.77,
        "accuracy_before": 0.988,
        "accuracy_after": 0.976,
        "loss_pp": 1.2,
        "loss_ci95_pp": [-0.6, 3.0],
        "worst_class_loss_pp": 4.1,
        "input_side": 224,
        "seconds": 302.4,
        "commit": "0b29381",
        **values,
    }


def _setting(methods: ModuleType, max_loss: float = 1.0) -> Any:
    return methods.Setting(Path("data"), max_loss, None, 7, 1)


def _jobs(methods: ModuleType, seeds: int) -> list[Any]:
    """The jobs of some method that is measured that many times."""
    jobs = methods.JOBS
    method = next(job.method for job in jobs if len(job.method.seeds) == seeds)
    first = next(job for job in jobs if job.method == method)
    return [job for job in jobs if job.name == first.name]


def _methods_table(methods: ModuleType, rows: list[dict[str, Any]], jobs: Any) -> Any:
    return _columns(methods.table(rows, jobs, _setting(methods)))


def test_methods_puts_every_number_in_its_column(methods: ModuleType) -> None:
    [job] = _jobs(methods, seeds=1)
    assert _methods_table(methods, [_measured(methods, job)], methods.JOBS) == [
        {
            "network": job.network.name,
            "classes": str(len(job.classes)),
            "method": job.method.name,
            "MACs, every runtime": "1.26x",
            "MACs with partial removal": "1.51x",
            "parameters": "1.77x",
            "accuracy": "98.8 -> 97.6 %",
            "loss in points, 95 % interval": "+1.2 (-0.6 to +3.0)",
            "worst class": "4.1",
            "input": "224",
            "seconds": "302",
            "commit": "0b29381",
        }
    ]


def test_methods_prints_mean_and_range_of_seeds(methods: ModuleType) -> None:
    jobs = _jobs(methods, seeds=3)
    ratios = (1.1, 1.2, 1.6)
    rows = [_measured(methods, j, mac_ratio=r) for j, r in zip(jobs, ratios, strict=True)]
    [line] = _methods_table(methods, rows, jobs)
    assert line["MACs, every runtime"] == "1.30x (1.10 to 1.60)"
    assert "3 seeds" in line["method"]


def test_methods_prints_what_failed(methods: ModuleType) -> None:
    [job] = _jobs(methods, seeds=1)
    failed = methods.identity(job, _setting(methods)) | {"failed": "ValueError: this | that"}
    [line] = _methods_table(methods, [failed], [job])
    assert "ValueError: this / that" in line["method"]
    assert line["MACs, every runtime"] == line["seconds"] == "-"


def test_methods_prints_the_latest_row_of_this_setting(methods: ModuleType) -> None:
    [job] = _jobs(methods, seeds=1)
    other = methods.identity(job, _setting(methods, max_loss=2.0))
    rows = [
        _measured(methods, job),
        _measured(methods, job, mac_ratio=1.5),
        _measured(methods, job, mac_ratio=9.0, **other),
    ]
    [line] = _methods_table(methods, rows, [job])
    assert line["MACs, every runtime"] == "1.50x"
