"""Exported files say what the network says, and no more of this machine than they must."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.cli import main
from distillnet.cut.surgery import compact
from distillnet.deploy import (
    TOLERANCE,
    Deployable,
    Form,
    compare,
    export,
    onnx_scores,
    open_onnx,
    write_onnx,
)
from distillnet.deploy.agreement import as_pixels
from distillnet.deploy.pt2_file import write_pt2
from distillnet.errors import InputError
from distillnet.graph import GraphModule
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.saving import LICENCE
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.documents import FORMAT
from plans import random_plan
from untrained_run import CLASSES, SIDE, images

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
    assert told["model_license"] == LICENCE
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        (old / name).write_text(
            (run / name).read_text().replace(f'"format": {FORMAT}', '"format": 2')
        )

    there = importlib.import_module

    def missing(name: str, *args: Any) -> object:
        if name.startswith("onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *args)

    cases = [
        (["export", str(run), "--format", "tflite"], "onnx"),
        (["export", str(run), "--out", str(run / "result.json" / "m.onnx")], "--out"),
        (["export", str(old)], "of format 2, written by an older version"),
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
