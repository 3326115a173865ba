"""The paper's figures of energy come out, and a machine's counter is read as it counts."""

import math
from pathlib import Path

import pytest
import torch

from distillnet.playbook.meters import joules_per_call, open_counter, peak_macs_per_s
from distillnet.playbook.metrics import add_metrics, energy_mj, mac_energy_pj, multiplication_share


def test_the_papers_example() -> None:
    """Eq. 11: at a hit rate of 0.95 the multiplication is 2.58 % of the energy."""
    assert round(100 * multiplication_share(0.95), 2) == 2.58
    assert mac_energy_pj(1.0) == 7
    assert mac_energy_pj(0.0) == 641
    assert energy_mj(10**9, hit_rate=1.0) == pytest.approx(7.0)  # 7 pJ times a billion


def test_metrics_of_a_bench() -> None:
    entries = [
        {"network": "original", "batch": 1, "median_ms": 20.0},
        {"network": "distilled", "batch": 16, "median_ms": 80.0},
    ]
    bench = {"entries": entries}
    add_metrics(bench, {"original": 10**9, "distilled": 10**8}, 1e11, hit_rate=0.5)
    assert [entry["frames_per_s"] for entry in entries] == pytest.approx([50.0, 200.0])
    assert [entry["share_of_peak"] for entry in entries] == pytest.approx([0.5, 0.2])
    assert bench["peak_gmacs_per_s"] == pytest.approx(100.0)
    ratio = bench["energy"]["estimate_mj"]["original"] / bench["energy"]["estimate_mj"]["distilled"]
    assert ratio == pytest.approx(10)
    assert "640 pJ" in bench["energy"]["assumptions"]


def _zone(folder: Path, name: str, kind: str, energy_uj: int, range_uj: int) -> Path:
    zone = folder / name
    zone.mkdir()
    (zone / "name").write_text(f"{kind}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return zone / "energy_uj"


def test_packages_are_counted_once_and_wrap_around(tmp_path: Path) -> None:
    first = _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, 9_999_999)
    second = _zone(tmp_path, "intel-rapl:1", "package-1", 9_000_000, 9_999_999)
    _zone(tmp_path, "intel-rapl:0:0", "core", 1, 9_999_999)  # a part of the first
    _zone(tmp_path, "intel-rapl:2", "psys", 1, 9_999_999)  # the platform, which holds both
    counter = open_counter(tmp_path)
    assert counter is not None
    before = counter.read_uj()
    first.write_text("7000000\n")
    second.write_text("500000\n")
    assert counter.joules_since(before) == pytest.approx(2.0 + 1.5)


def test_joules_are_those_of_a_call(tmp_path: Path) -> None:
    file = _zone(tmp_path, "intel-rapl:0", "package-0", 0, 10**12)

    def call() -> None:
        file.write_text(f"{int(file.read_text()) + 250_000}\n")

    assert joules_per_call(call, open_counter(tmp_path), seconds=0.01) == pytest.approx(0.25)


def test_no_counter_is_no_figure(tmp_path: Path) -> None:
    assert open_counter(tmp_path / "nowhere") is None
    file = _zone(tmp_path, "intel-rapl:0", "package-0", 0, 10**12)
    file.write_text("denied")
    assert open_counter(tmp_path) is None
    assert joules_per_call(lambda: None, None) is None


def test_the_peak_is_a_number_and_leaves_threads_alone() -> None:
    before = torch.get_num_threads()
    assert 0 < peak_macs_per_s(1, seconds=0.0) < math.inf
    assert torch.get_num_threads() == before
