"""Bench tells what the contract promises; times are taken in turns and remembered."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.cut.times import CHAINS, read_times
from distillnet.deploy import (
    Deployable,
    bench,
    distilled_network,
    original_network,
    original_networks,
    write_onnx,
)
from distillnet.deploy.bench import Settings, bench_json, interleave, time_networks
from distillnet.deploy.c_folder import write_c
from distillnet.deploy.peak import peak_mb
from distillnet.deploy.profile import LayerTime, held_back, profile_onnx
from distillnet.deploy.pt2_file import write_pt2
from distillnet.deploy.runtimes import available_runtimes, file_format
from distillnet.deploy.timings import measuring, write_kit
from distillnet.errors import InputError
from selection import exhaustive
from untrained_run import SIDE, net_of


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime", exhaustive(["onnx", "torch", "compiled", "c"], ("onnx", "c").__contains__)
)
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
                "--model", net_of(run), "--seconds", "0", "--batch", "3", "--memory",
                "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((run / "bench.json").read_text())
    assert told["threads"] == 1
    entries = told["entries"]
    assert [(e["runtime"], e["batch"], e["network"], e["written_by"]) for e in entries] == [
        (runtime, batch, *network)
        for runtime in ("onnx", "torch")
        for batch in (1, 3)
        for network in (
            ("original", "plain export"), ("original", "distillnet"), ("distilled", "distillnet")
        )
    ]  # fmt: skip
    result = dn.open_run(run).result
    for entry in entries:
        assert entry["precision"] == "float32"
        network = "baseline" if entry["network"] == "original" else "distilled"
        assert entry["input_size"] == result[network]["input_size"]
    assert told["run"] == run.name
    for entry in entries:
        assert 0 < entry["p05_ms"] <= entry["median_ms"] <= entry["p95_ms"]
        assert entry["runs"] >= 5
        assert entry["bytes"] > 1000
        file = f"{entry['network']}-{entry['written_by'].replace(' ', '-')}"
        assert entry["peak_mb"] == peaks[entry["runtime"], file, entry["batch"]]
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


def test_a_plain_export_that_does_not_run_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = dn.open_run(run)
    plain, original, _ = original_networks(opened, net_of(run))
    real = bench.written_for

    def written(network: Deployable, *others: object) -> Path:
        if network is plain:
            raise RuntimeError("no such operator")
        return real(network, *others)

    monkeypatch.setattr(bench, "written_for", written)
    networks = (plain, original, distilled_network(opened))
    timing = time_networks(networks, ["torch"], tmp_path, Settings(1, 1, 0.0, 2))
    assert timing.left_out == {"torch": "RuntimeError: no such operator"}
    assert [entry.written_by for entry in timing.entries] == ["distillnet", "distillnet"]
    assert set(timing.time_ratio) == {"torch"}


@pytest.mark.usefixtures("peaks")
def test_a_runtime_that_cannot_run_ours_is_left_out_unless_it_was_asked_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = dn.open_run(run)
    networks = (original_network(opened, net_of(run))[0], distilled_network(opened))
    real = bench.open_runtime

    def broken(runtime: str, *others: object) -> object:
        if runtime == "onnx":
            raise RuntimeError("no such operator")
        return real(runtime, *others)

    monkeypatch.setattr(bench, "open_runtime", broken)
    how = Settings(1, 1, 0.0, 2)
    timing = time_networks(networks, ["onnx", "torch"], tmp_path, how, go_on=True)
    assert timing.left_out == {"onnx": "RuntimeError: no such operator"}
    assert {entry.runtime for entry in timing.entries} == set(timing.time_ratio) == {"torch"}
    with pytest.raises(RuntimeError, match="no such operator"):
        time_networks(networks, ["onnx", "torch"], tmp_path, how)
    with pytest.raises(dn.DistillnetError, match="no runtime here can run these"):
        time_networks(networks, ["onnx"], tmp_path, how, go_on=True)


@pytest.mark.usefixtures("peaks")
def test_a_processor_that_others_have_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that sleeps has no processor; of several threads it is not known."""
    monkeypatch.setattr(bench, "open_runtime", lambda *_: lambda x: time.sleep(0.01))
    opened = dn.open_run(run)
    networks = (original_network(opened, net_of(run))[0], distilled_network(opened))
    shares = {
        threads: time_networks(networks, ["torch"], tmp_path, Settings(threads, 1, 0.1)).busy_share
        for threads in (1, 2)
    }
    assert shares[1] is not None
    assert shares[1] > 0.5
    assert shares[2] is None


def test_measuring_takes_about_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("distillnet.deploy.bench.time.perf_counter", lambda: now)
    for slow, least in ((0.01, 20), (0.7, 2), (9.0, 2)):  # calls of so many seconds, for 8 of them
        now = 0.0
        times = interleave([lambda slow=slow: wait(slow), lambda slow=slow: wait(slow)], 8.0, 2)
        assert len(times) >= least
        assert now <= max(8.0 + 2 * slow, 3 * 2 * slow)


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


def test_a_users_network_is_timed_without_its_weights_where_they_are_not_at_hand(run: Path) -> None:
    opened = dn.open_run(run)
    gone = replace(opened, sources={**opened.sources, "weights": "(elsewhere)"})
    original, own = original_network(gone, net_of(run))
    assert not own
    assert original.module(torch.rand(1, 3, SIDE, SIDE)).shape == (1, 4)


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


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_every_chain_is_timed_here(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the channels that come out of it; whatever the threads, they are put back."""
    before = torch.get_num_threads()

    def channels(calls: Sequence[Callable[[], Any]], *_: object, **__: object) -> np.ndarray:
        return np.array([[float(np.asarray(call()).shape[-3]) for call in calls]])

    monkeypatch.setattr(measuring, "interleave", channels)
    monkeypatch.setattr(measuring, "is_installed", lambda *_: runtime == "onnxruntime")
    monkeypatch.setattr(measuring, "_RUNS", 1)
    table = measuring.measure_times(before + 1)
    assert table.seconds == {name: chain[-1][1] for name, chain in CHAINS.items()}
    assert table.runtime.startswith(runtime)
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "c"])
def test_a_kit_measures_a_device_and_goes_on_where_it_stopped(
    runtime: str, kit: Path, tmp_path: Path
) -> None:
    """As a device would: by a Python without distillnet."""
    out = tmp_path / "times.json"
    command = [sys.executable, "-I", str(kit / "measure.py"), "--runtime", runtime]
    command += ["--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    times = read_times(out)
    assert all(time > 0 for time in times.seconds.values())
    found = json.loads(out.read_text())
    gone = list(CHAINS)[-1]
    del found["seconds"][gone]
    found["seconds"][next(iter(CHAINS))] = 123.0  # measured before, so not again
    out.write_text(json.dumps(found))
    with pytest.raises(InputError, match="goes on where it stopped"):
        read_times(out)
    subprocess.run(command, check=True, capture_output=True)
    assert read_times(out).seconds[next(iter(CHAINS))] == 123.0
    others = [json.dumps(found | {key: "another"}) for key in ("machine", "side", "format")]
    for text, words in [*((other, "another kit, machine") for other in others), ("[", "delete it")]:
        out.write_text(text)
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
        assert out.read_text() == text


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that runs each network once."""
    folder = tmp_path_factory.mktemp("kit")
    write_kit(folder)
    script = folder / "measure.py"
    text = script.read_text()
    script.write_text(
        text.replace(
            "LEAST_SECONDS, WARM_UP = 7, 1.0, 2", "LEAST_SECONDS, WARM_UP = 1, 0.0, 0"
        ).replace('"-O3"', '"-O0"')  # to compile takes longer than to run once
    )
    return folder
