"""Exported files say what the network says; bench tells what the contract promises."""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import distillnet as dn
from commands import run_command
from distillnet.cli import main
from distillnet.cut.bitmaps import complete_removal
from distillnet.cut.surgery import compact
from distillnet.deploy import (
    TOLERANCE,
    Deployable,
    Form,
    compare,
    distilled_network,
    export,
    onnx_scores,
    open_onnx,
    original_network,
    timings,
    write_onnx,
)
from distillnet.deploy.agreement import as_pixels
from distillnet.deploy.bench import Settings, bench_json, interleave, time_networks
from distillnet.deploy.profile import LayerTime, held_back, profile_onnx
from distillnet.deploy.pt2_file import write_pt2
from distillnet.deploy.runtimes import available_runtimes, file_format
from distillnet.errors import InputError
from distillnet.graph import GraphModule
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images.preprocessing import Preprocessing, preprocess
from distillnet.models import random_model
from plans import random_plan

SIDE, CLASSES = 32, ("ant", "bee", "cat", "dog")
NET = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 96, 3, padding=1)
        self.norm = nn.LocalResponseNorm(5)
        self.c = nn.Linear(96, {len(CLASSES)})

    def forward(self, x):
        x = self.norm(self.a(x).relu())
        return self.c(self.b(nn.functional.max_pool2d(x, 2)).relu().mean((2, 3)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained network, its images labelled by what it says of them."""
    home = tmp_path_factory.mktemp("deploy")
    (home / "net.py").write_text(NET)
    (home / "names.tsv").write_text(
        "index\tname\n" + "".join(f"{i}\t{name}\n" for i, name in enumerate(CLASSES))
    )
    generator = np.random.default_rng(0)
    for name in CLASSES[:3]:
        (home / "data" / name).mkdir(parents=True)
        for i in range(20):
            colour = generator.integers(0, 256, 3)
            noise = generator.integers(-40, 40, (SIDE, SIDE, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "data" / name / f"{i:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "distill", f"{home / 'net.py'}:Net", "--data", str(home / "data"), "--out",
            str(home / "run"), "--classes", ",".join(CLASSES[:3]), "--class-names",
            str(home / "names.tsv"), "--input-size", str(SIDE), "--mean", "0.5,0.4,0.3", "--std",
            "0.25,0.25,0.25", "--target-macs", "2",
        )  # fmt: skip
    return home / "run"


@pytest.fixture(scope="module")
def network(run: Path) -> Deployable:
    return distilled_network(dn.open_run(run))


def images(n: int, how: Preprocessing) -> tuple[Tensor, np.ndarray]:
    """Random pictures, normalised (N, C, H, W), and as they come, (N, H, W, 3)."""
    generator = np.random.default_rng(1)
    shape = (n, *how.input_size, 3)
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    return torch.stack([preprocess(Image.fromarray(p), how) for p in pixels]), pixels


CONVENTIONS = {
    "RGB": Preprocessing((SIDE, SIDE), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    "BGR": Preprocessing((SIDE, SIDE), (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), divisor=1.0,
                         channels="BGR"),
    "grey": Preprocessing((SIDE, SIDE), (0.1307,), (0.3081,), channels="L"),
}  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("write", [write_onnx, write_pt2], ids=["onnx", "pt2"])
def test_preprocessing_inside_the_file_is_that_of_images(write, convention, tmp_path: Path) -> None:
    how = CONVENTIONS[convention]
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(len(how.mean), 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 30 * 30, 3)
    ).eval()
    network = Deployable("original", module, how, ("a", "b", "c"), {"producer": "distillnet 0"})
    x, pixels = images(5, how)
    write(network, tmp_path / "file", with_preprocessing=True)
    if write is write_onnx:
        file = open_onnx(tmp_path / "file")
        assert file.takes_pixels
        found = compare(module, lambda _: file.scores(pixels), x)
        again = compare(module, lambda part: onnx_scores(file, how)(part), x)
        assert again.holds
    else:
        program = torch.export.load(tmp_path / "file").module()
        found = compare(module, lambda _: program(torch.from_numpy(pixels)).detach().numpy(), x)
    assert found.holds
    assert found.decisions == 0
    if convention != "grey":  # three colours become one: not to be undone
        assert np.array_equal(as_pixels(x.numpy(), how), pixels)


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("format_", ["onnx", "pt2"])
def test_files_take_the_batches_they_say(
    run: Path, network: Deployable, format_: str, batch: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    done = export(dn.open_run(run), path, Form(format_, batch=batch), None)
    assert done.agreement.holds
    assert not done.real_images
    assert done.bytes == path.stat().st_size
    x, _ = images(6, network.preprocessing)
    if format_ == "onnx":
        file = open_onnx(path)
        assert file.batch == batch
        assert compare(network.module, file.scores, x).largest <= TOLERANCE
    else:
        program = torch.export.load(path).module()
        assert program(x[: batch or 6]).shape == (batch or 6, 3)


def test_an_onnx_file_says_where_it_comes_from_and_nothing_of_this_machine(
    run: Path, network: Deployable, tmp_path: Path
) -> None:
    write_onnx(network, tmp_path / "m.onnx")
    told = open_onnx(tmp_path / "m.onnx").metadata
    assert json.loads(told["class_names"]) == list(CLASSES[:3])
    assert json.loads(told["input_size"]) == list(network.preprocessing.input_size)
    assert told["weights_sha256"] == dn.open_run(run).weights_sha256
    content = (tmp_path / "m.onnx").read_bytes()
    for path in (str(Path(dn.__file__).parent), str(Path.home()), str(tmp_path)):
        # The model's name is the file that it came from, as the user gave it.
        assert content.replace(str(run.parent).encode(), b"").count(path.encode()) == 0


def test_export_compares_on_the_runs_images(run: Path, monkeypatch, capsys) -> None:
    run_command(monkeypatch, "export", str(run), "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["real_images"]
    assert told["compared_on"] == dn.open_run(run).result["n_images"]["val"]
    assert told["largest_difference"] <= told["tolerance"] == TOLERANCE
    assert told["different_decisions"] == 0
    assert told["accuracy"] == dn.open_run(run).result["distilled"]["accuracy"]
    assert Path(told["out"]) == run / "model.onnx"
    data = str(run.parent / "data")
    values = []
    for runtime in ("torch", "onnx"):
        run_command(monkeypatch, "evaluate", str(run), "--data", data, "--runtime", runtime,
                    "--json")  # fmt: skip
        values.append(json.loads(capsys.readouterr().out))
    assert [v.pop("runtime") for v in values] == ["torch", "onnx"]
    assert values[0] == values[1]


@pytest.mark.parametrize(("precision", "share"), [("int8", 0.55), ("float16", 0.75)])
def test_less_precision_takes_less_room_and_is_held_to_the_budget(
    run: Path, monkeypatch, capsys, tmp_path: Path, precision: str, share: float
) -> None:
    option = {"int8": "--int8", "float16": "--fp16"}[precision]
    out = tmp_path / "small.onnx"
    run_command(monkeypatch, "export", str(run), option, "--max-loss", "100", "--out", str(out),
                "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    run_command(monkeypatch, "export", str(run), "--out", str(tmp_path / "whole.onnx"))
    assert told["bytes"] < share * (tmp_path / "whole.onnx").stat().st_size
    assert told["precision"] == precision
    result = dn.open_run(run).result
    loss = 100 * (result["baseline"]["accuracy"] - told["accuracy"])
    assert told["loss_pp"] == pytest.approx(loss)
    # The images' labels are random, so the loss may be negative; then no budget refuses it.
    monkeypatch.setattr(
        sys, "argv", ["distillnet", "export", str(run), option, "--max-loss", "0", "--out",
                      str(tmp_path / "refused.onnx")],
    )  # fmt: skip
    with pytest.raises(SystemExit) as leaving:
        main()
    refused = loss > 0
    assert bool(leaving.value.code) == refused
    assert (tmp_path / "refused.onnx").exists() != refused
    if refused:
        assert f"{loss:.2f} points" in capsys.readouterr().err


def test_int8_takes_a_batch_of_more_images_than_there_are(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("export", str(run), "--int8", "--max-loss", "100", "--json", "--out")
    accuracies = []
    for batch in ([], ["--batch", "64"]):
        run_command(monkeypatch, *words, str(tmp_path / "small.onnx"), *batch)
        accuracies.append(json.loads(capsys.readouterr().out)["accuracy"])
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.2)  # 12 images


def test_int8_leaves_normalisation_across_channels_alone(run: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    opened = dn.open_run(run)
    data = dn.open_images(run.parent / "data", opened.classes, opened.mission.indices)
    export(opened, tmp_path / "q.onnx", Form(precision="int8"), dn.split_images(data), 100.0)
    graph = onnx.load(str(tmp_path / "q.onnx")).graph
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kinds = [made_by[node.input[0]].op_type for node in convolutions if node.input[0] in made_by]
    assert kinds.count("Mul") == 1  # the band over the squares
    assert kinds.count("DequantizeLinear") >= 2


def test_bench_tells_what_the_contract_says(run: Path, monkeypatch, capsys) -> None:
    run_command(monkeypatch, "bench", str(run), "--runtime", "onnx", "--runtime", "torch",
                "--seconds", "0", "--batch", "3", "--json")  # fmt: skip
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
    for runtime, ratio in told["time_ratio"].items():
        assert told["realised"][runtime] == pytest.approx(ratio / told["mac_ratio"])
    assert told["mac_ratio"] == dn.open_run(run).result["mac_ratio"]
    names = {layer["name"] for layer in told["layers"]["original"]}
    assert {"a", "b", "c"} <= {name.split(":")[0] for name in names}
    assert (run / "bench.png").read_bytes().startswith(b"\x89PNG")


def refused(monkeypatch, *args: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["distillnet", *args])
    with pytest.raises(SystemExit) as leaving:
        main()
    return leaving.value.code


def test_a_folder_of_c_says_what_torch_says(run: Path, monkeypatch, capsys, tmp_path: Path) -> None:
    data = str(run.parent / "data")
    for prefix in ("first", "bird"):  # the second takes the place of the first
        run_command(monkeypatch, "export", str(run), "--format", "c", "--prefix", prefix, "--json")
        told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(run / "c")
    assert [m["classes"] for m in told["missions"]] == [list(CLASSES[:3])]
    assert told["missions"][0]["difference"] <= told["tolerance"] == TOLERANCE
    assert told["arena_share"] < 1.05
    assert told["weight_bytes"] == (run / "c" / "weights.bin").stat().st_size
    promised = {"model.h", "model.c", "weights.bin", "weights.c", "missions", "test_vector.c",
                "CMakeLists.txt", "Makefile", "README.md", "about.json"}  # fmt: skip
    assert {path.name for path in (run / "c").iterdir()} == promised
    source = (run / "c" / "model.c").read_text()
    assert "--format c --prefix bird" in source
    assert "first_run" not in source
    values = []
    for runtime in ("torch", "c"):
        run_command(monkeypatch, "evaluate", str(run), "--data", data, "--runtime", runtime,
                    "--json")  # fmt: skip
        values.append(json.loads(capsys.readouterr().out))
    assert [v.pop("runtime") for v in values] == ["torch", "c"]
    assert values[0] == values[1]
    run_command(monkeypatch, "bench", str(run), "--runtime", "c", "--seconds", "0", "--batch", "1",
                "--out", str(tmp_path / "bench.json"), "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert [(e["network"], e["batch"]) for e in told["entries"]] == [
        (network, 1) for network in ("original", "distilled")
    ]
    assert set(told["time_ratio"]) == {"c"}


def test_runs_of_one_network_become_missions(
    run: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    home = run.parent
    for name, classes in (("early", "ant,bee"), ("late", "cat,ant")):
        run_command(
            monkeypatch, "distill", f"{home / 'net.py'}:Net", "--data", str(home / "data"),
            "--out", str(tmp_path / name), "--classes", classes, "--class-names",
            str(home / "names.tsv"), "--input-size", str(SIDE), "--mean", "0.5,0.4,0.3", "--std",
            "0.25,0.25,0.25", "--method", "paper", "--max-loss", "60",
        )  # fmt: skip
    early, late, out = (str(tmp_path / name) for name in ("early", "late", "c"))
    capsys.readouterr()
    run_command(monkeypatch, "export", early, "--format", "c", "--switchable", "--mission", late,
                "--out", out, "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["switchable"]
    assert [(m["name"], m["classes"]) for m in told["missions"]] == [
        ("early", ["ant", "bee"]), ("late", ["cat", "ant"])
    ]  # fmt: skip
    assert all(m["difference"] <= TOLERANCE for m in told["missions"])
    for path in (early, late):
        values = []
        for options in (["--runtime", "c", "--file", out], ["--runtime", "torch"]):
            data = str(home / "data")
            run_command(monkeypatch, "evaluate", path, "--data", data, *options, "--json")
            values.append(json.loads(capsys.readouterr().out)["per_class"])
        assert values[0] == values[1]
    cases = [
        (["export", str(run), "--format", "c", "--switchable", "--out", out], "--method paper"),
        (["export", early, "--format", "c", "--mission", late, "--out", out], "--switchable"),
        (["export", early, "--switchable"], "--format c"),
        (["export", early, "--format", "c", "--int8"], "--format onnx"),
        (["export", early, "--format", "c", "--max-loss", "2"], "--format c with --max-loss"),
        (["export", early, "--prefix", "net"], "need --format c"),
        (["export", early, "--format", "c", "--prefix", "if"], "--prefix"),
        (["evaluate", str(run), "--data", str(home / "data"), "--runtime", "c", "--file", out],
         "Export this run"),
        (["evaluate", early, "--data", str(home / "data"), "--runtime", "c", "--file", early],
         "--format c"),
        (["bench", early, "--runtime", "c", "--threads", "2"], "--threads 1"),
    ]  # fmt: skip
    for args, way_out in cases:
        assert refused(monkeypatch, *args) == 2, args
        assert way_out in capsys.readouterr().err, args
    with monkeypatch.context() as patch:
        patch.setattr("distillnet.engine.native.shutil.which", lambda name: None)
        assert refused(patch, "bench", early, "--runtime", "c") == 2
        assert "install gcc" in capsys.readouterr().err
        run_command(patch, "export", early, "--format", "c", "--out", out, "--json")
        assert json.loads(capsys.readouterr().out)["missions"][0]["difference"] is None


def test_networks_run_in_turns_and_are_compared_pair_by_pair(run: Path, tmp_path: Path) -> None:
    order: list[str] = []
    times = interleave([lambda: order.append("a"), lambda: order.append("b")], 0.0, 3, warm_up=1)
    assert order == ["a", "b"] * 4
    assert times.shape == (3, 2)
    opened = dn.open_run(run)
    networks = (original_network(opened)[0], distilled_network(opened))
    settings = Settings(batch=1, seconds=0.0, least_runs=5)
    timing = time_networks(networks, ["torch"], tmp_path, settings)
    assert [entry.network for entry in timing.entries] == ["original", "distilled"]
    json.dumps(bench_json(timing, 2.0, settings), allow_nan=False)


def test_the_original_is_found_again_whatever_form_it_came_in(run: Path, tmp_path: Path) -> None:
    opened = dn.open_run(run)
    original, own = original_network(opened)
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
    networks = (original_network(dn.open_run(run))[0], distilled_network(dn.open_run(run)))
    with pytest.raises(InputError, match="found 2 threads"):
        time_networks(networks, ["c"], tmp_path, Settings(threads=2, batch=1, seconds=0.0))


def test_what_holds_the_saving_back_is_what_got_no_faster() -> None:
    before = (LayerTime("a", 8.0, 10), LayerTime("b", 4.0, 10), LayerTime("MaxPool", 1.0, 0))
    after = (LayerTime("a", 2.0, 3), LayerTime("b", 2.0, 3), LayerTime("MaxPool", 1.0, 0))
    assert held_back(before, after, 4.0) == (("b", 1.0), ("MaxPool", 0.75))


def test_the_profile_knows_layers_by_their_names_and_macs(run: Path, tmp_path: Path) -> None:
    original, own = original_network(dn.open_run(run))
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


FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf",
    "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
    "vgg11_bn", "wide_resnet50_2",
)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_exports_compacted_and_agrees(name: str, tmp_path: Path) -> None:
    side = {"inception_v3": 96}.get(name, 64)
    model = random_model(f"torchvision:{name}", input_size=side)
    graph = capture_model(model)
    channels = analyse(graph)
    plan = random_plan(graph, channels, "channels", 0)
    plan = replace(plan, keep={s: k for s, k in plan.keep.items() if not complete_removal(k).all()})
    small = compact(graph, channels, plan)
    network = Deployable(
        "distilled", GraphModule(small).eval(), model.preprocessing, CLASSES, {"producer": "d 0"}
    )
    write_onnx(network, tmp_path / "m.onnx")
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = compare(network.module, open_onnx(tmp_path / "m.onnx").scores, x)
    assert found.largest <= TOLERANCE
    assert found.decisions == 0


def test_squeezenet_says_the_same_of_all_val_images(data_dir: Path, tmp_path: Path) -> None:
    weights = data_dir / "weights" / "squeezenet1_0.safetensors"
    model = dn.load_model("torchvision:squeezenet1_0", weights=weights)
    mission = dn.parse_mission("tench,church", model.classes)
    graph = capture_model(model)
    channels = analyse(graph)
    plan = replace(random_plan(graph, channels, "channels", 1), outputs=mission.indices)
    module = GraphModule(compact(graph, channels, plan)).eval()
    network = Deployable("distilled", module, model.preprocessing, mission.names, {"producer": "d"})
    write_onnx(network, tmp_path / "m.onnx")
    val = dn.open_images(data_dir / "imagenette", model.classes, mission.indices).val
    assert val is not None
    for batch in dn.load_batches(val, model.preprocessing, batch_size=32):
        found = compare(module, open_onnx(tmp_path / "m.onnx").scores, batch.x_nchw)
        assert found.largest <= TOLERANCE
        assert found.decisions == 0


def test_what_is_missing_or_wrong_is_said_in_one_message(
    run: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("mission.json", "result.json"):
        (old / name).write_text((run / name).read_text().replace('"format": 2', '"format": 1'))

    def missing(name: str, *args: object) -> object:
        if name.startswith("onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.__import__(name)

    cases = [
        (["export", str(run), "--format", "tflite"], "onnx"),
        (["export", str(run), "--out", str(run / "result.json" / "m.onnx")], "--out"),
        (["export", str(old)], "format 1"),
        (["export", str(run), "--format", "pt2", "--int8", "--out", str(tmp_path / "x")], "onnx"),
        (["bench", str(run), "--runtime", "abacus"], "openvino"),
        (["evaluate", str(run), "--data", str(run.parent / "data"), "--runtime", "onnx",
          "--file", str(tmp_path / "none.onnx")], "distillnet export"),
        (["evaluate", str(run), "--data", str(run.parent / "data"), "--file", "x"], "--runtime"),
    ]  # fmt: skip
    for args, way_out in cases:
        monkeypatch.setattr(sys, "argv", ["distillnet", *args])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert leaving.value.code == 2, args
        assert way_out in capsys.readouterr().err, args
    with monkeypatch.context() as patch:
        patch.setattr("distillnet.deploy.extras.importlib.import_module", missing)
        for args in (["export", str(run)], ["bench", str(run), "--runtime", "onnx"]):
            patch.setattr(sys, "argv", ["distillnet", *args])
            with pytest.raises(SystemExit) as leaving:
                main()
            assert leaving.value.code == 2
            assert "pip install 'distillnet[onnx]'" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected one of onnx, pt2"):
        Form("tflite")
