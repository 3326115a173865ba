"""The tables that benchmarks print, of made-up results; no benchmark is run here."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
