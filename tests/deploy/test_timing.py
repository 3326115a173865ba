"""Bench tells what the contract promises; times are taken in turns and remembered."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.deploy import Deployable, distilled_network, original_network, timings, write_onnx
from distillnet.deploy.bench import Settings, bench_json, interleave, time_networks
from distillnet.deploy.c_folder import write_c
from distillnet.deploy.peak import peak_mb
from distillnet.deploy.profile import LayerTime, held_back, profile_onnx
from distillnet.deploy.pt2_file import write_pt2
from distillnet.deploy.runtimes import available_runtimes, file_format
from distillnet.errors import InputError
from untrained_run import SIDE, net_of


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "torch", "compiled", "c"])
def test_a_runtimes_memory_is_that_of_a_process_of_its_own(
    network: Deployable, tmp_path: Path, runtime: str
) -> None:
    if runtime not in available_runtimes():
        pytest.skip(f"the runtime {runtime} cannot run here")
    write = {"onnx": write_onnx, "c": write_c}.get(runtime, write_pt2)
    path = tmp_path / "file"
    if runtime == "c":
        path.mkdir()
    write(network, path)
    peak = peak_mb(runtime, path, 1, (1, 3, SIDE, SIDE))
    if Path("/proc/self/clear_refs").exists():
        assert peak is not None
        assert 0 < peak < 1000
    else:
        assert peak is None


@pytest.mark.slow
def test_bench_tells_what_the_contract_says(run: Path, monkeypatch, capsys, peaks) -> None:
    run_command(monkeypatch, "bench", str(run), "--runtime", "onnx", "--runtime", "torch",
                "--model", net_of(run), "--seconds", "0", "--batch", "3", "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((run / "bench.json").read_text())
    assert told["threads"] == 1
    entries = told["entries"]
    assert [(e["runtime"], e["batch"], e["network"]) for e in entries] == [
        (runtime, batch, network)
        for runtime in ("onnx", "torch")
        for batch in (1, 3)
        for network in ("original", "distilled")
    ]
    for entry in entries:
        assert 0 < entry["p05_ms"] <= entry["median_ms"] <= entry["p95_ms"]
        assert entry["runs"] >= 20
        assert entry["bytes"] > 1000
        assert entry["peak_mb"] == peaks[entry["runtime"], entry["network"], entry["batch"]]
    assert len(peaks) == len(entries)
    for runtime, ratio in told["time_ratio"].items():
        assert told["realised"][runtime] == pytest.approx(ratio / told["mac_ratio"])
    assert told["mac_ratio"] == dn.open_run(run).result["mac_ratio"]
    names = {layer["name"] for layer in told["layers"]["original"]}
    assert {"a", "b", "c"} <= {name.split(":")[0] for name in names}
    assert (run / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("peaks")
def test_networks_run_in_turns_and_are_compared_pair_by_pair(run: Path, tmp_path: Path) -> None:
    order: list[str] = []
    times = interleave([lambda: order.append("a"), lambda: order.append("b")], 0.0, 3, warm_up=1)
    assert order == ["a", "b"] * 4
    assert times.shape == (3, 2)
    opened = dn.open_run(run)
    networks = (original_network(opened, net_of(run))[0], distilled_network(opened))
    settings = Settings(batch=1, seconds=0.0, least_runs=5)
    timing = time_networks(networks, ["torch"], tmp_path, settings)
    assert [entry.network for entry in timing.entries] == ["original", "distilled"]
    json.dumps(bench_json(timing, 2.0, settings), allow_nan=False)


def test_the_original_is_found_again_whatever_form_it_came_in(run: Path, tmp_path: Path) -> None:
    opened = dn.open_run(run)
    original, own = original_network(opened, net_of(run))
    assert own
    assert original.preprocessing == opened.preprocessing  # a file does not tell it itself
    write_pt2(original, path := tmp_path / "net.pt2", batch=None)
    programme = {"model": str(path)}
    again, own = original_network(replace(opened, result=opened.result | programme))
    assert own
    assert again.preprocessing == original.preprocessing
    x = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(again.module(x), original.module(x))


def test_weights_that_were_downloaded_are_not_downloaded_for_their_time(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = dn.open_run(run)
    elsewhere = opened.result | {"model": "torchvision:squeezenet1_1"}
    monkeypatch.setattr("distillnet.deploy.networks.load_model", None)  # would be called
    original, own = original_network(replace(opened, result=elsewhere))
    assert not own
    assert original.module(torch.rand(1, 3, SIDE, SIDE)).shape == (1, 1000)


def test_many_threads_leave_out_the_runtime_that_has_one(run: Path, tmp_path: Path) -> None:
    assert "torch" in available_runtimes(2)
    assert "c" not in available_runtimes(2)
    with pytest.raises(InputError, match="found 2 threads"):
        file_format("c", 2)
    networks = (
        original_network(dn.open_run(run), net_of(run))[0],
        distilled_network(dn.open_run(run)),
    )
    with pytest.raises(InputError, match="found 2 threads"):
        time_networks(networks, ["c"], tmp_path, Settings(threads=2, batch=1, seconds=0.0))


def test_what_holds_the_saving_back_is_what_got_no_faster() -> None:
    before = (LayerTime("a", 8.0, 10), LayerTime("b", 4.0, 10), LayerTime("MaxPool", 1.0, 0))
    after = (LayerTime("a", 2.0, 3), LayerTime("b", 2.0, 3), LayerTime("MaxPool", 1.0, 0))
    assert held_back(before, after, 4.0) == (("b", 1.0), ("MaxPool", 0.75))


def test_the_profile_knows_layers_by_their_names_and_macs(run: Path, tmp_path: Path) -> None:
    original, own = original_network(dn.open_run(run), net_of(run))
    assert own
    write_onnx(original, tmp_path / "o.onnx")
    layers = {layer.name: layer for layer in profile_onnx(tmp_path / "o.onnx", tmp_path, 1, 5)}
    assert layers["a"].macs == 48 * 27 * SIDE * SIDE
    assert layers["b"].macs == 96 * 48 * 9 * (SIDE // 2) ** 2
    assert layers["a"].ms > 0


def test_timings_are_measured_once_and_remembered(tmp_path: Path) -> None:
    measured = []

    def table(runtime: str, threads: int) -> dict[int, float]:
        measured.append(runtime)
        return {1: 3.0, 2: 2.0, 4: 1.0, 8: 2.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        patch.setattr(timings, "time_of_multiples", table)
        assert [timings.best_multiple(), timings.best_multiple()] == [4, 4]
        assert len(measured) == 1
        (tmp_path / "distillnet" / "timings.json").write_text("not JSON")
        assert timings.best_multiple() == 4
        assert len(measured) == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_the_cost_of_a_number_is_what_the_times_were_made_of(runtime: str, tmp_path: Path) -> None:
    """Of made-up times of 2 ns a MAC and 50 ns a number, it is 25 MACs."""

    def made_up(_: str, chains: list, threads: int) -> np.ndarray:
        places = 28 * 28
        return np.array(
            [sum(places * o * (2e-9 * i * k * k + 50e-9) for i, o, k in chain) for chain in chains]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        patch.setattr(timings, "_medians", made_up)
        patch.setattr(timings, "is_installed", lambda *_: runtime == "onnxruntime")
        assert timings.element_cost() == pytest.approx(25.0)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_multiples_are_timed_on_chains_that_run(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each width is timed once, and a multiple costs what the widths rounded up to it cost."""
    before = torch.get_num_threads()

    def channels(calls: Sequence[Callable[[], Any]], *_: object, **__: object) -> np.ndarray:
        return np.array([[float(np.asarray(call()).shape[-3]) for call in calls]])

    monkeypatch.setattr(timings, "interleave", channels)
    times = timings.time_of_multiples(runtime, before + 1)
    for multiple, time in times.items():
        rounded = [-(-width // multiple) * multiple for width in timings._WIDTHS]
        assert time == pytest.approx(np.mean(rounded))
    assert torch.get_num_threads() == before
