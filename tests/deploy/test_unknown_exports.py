"""A rule for unknown images in every runtime, as the command line brings it there."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import distillnet as dn
from commands import run_command
from distillnet.deploy import TOLERANCE, Form, distilled_network, export, onnx_scores, open_onnx
from distillnet.deploy.c_folder import export_c
from distillnet.engine import COMPILERS
from distillnet.missions.unknown import RULE
from untrained_run import CLASSES, SIDE, images, net_of, refused

NAMES = (*CLASSES[:3], "unknown")
HAS_CC = any(shutil.which(name) for name in COMPILERS)


@pytest.fixture(scope="module")
def ruled(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a rule, and beside it images that its classes are not."""
    home = tmp_path_factory.mktemp("ruled")
    shutil.copytree(run, home / "run")
    draw = np.random.default_rng(5)
    for kind in ("stripes", "grey", "9"):
        for part in ("train", "val"):
            (home / "others" / part / kind).mkdir(parents=True)
            for i in range(8):
                pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                if kind == "stripes":
                    pixels[::2] = 0
                elif kind == "grey":
                    pixels = (pixels // 16) + 110
                Image.fromarray(pixels.astype(np.uint8)).save(
                    home / "others" / part / kind / f"{i}.png"
                )
    with pytest.MonkeyPatch.context() as patch:
        data = str(run.parent / "data")
        words = ("unknown", str(home / "run"), "--data", data, "--unknown", str(home / "others"))
        run_command(patch, *words, "--max-false-reject", "20")
    return home / "run"


@pytest.fixture
def told(
    ruled: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> object:
    """What `evaluate --unknown` says, as JSON."""

    def tell(*words: str) -> dict[str, object]:
        data, others = str(run.parent / "data"), str(ruled.parent / "others")
        words = ("evaluate", str(ruled), "--data", data, "--unknown", others, "--json", *words)
        capsys.readouterr()
        run_command(monkeypatch, *words)
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    return tell


def test_the_other_scores_are_calibrated_and_else_as_they_were(ruled: Path) -> None:
    opened = dn.open_run(ruled)
    x, _ = images(40, opened.preprocessing)
    plain, network = distilled_network(opened), distilled_network(opened, unknown=True)
    assert network.classes == NAMES
    with torch.inference_mode():
        y, z = plain.module(x), network.module(x)
    temperature = json.loads((ruled / RULE).read_text())["temperature"]
    torch.testing.assert_close(z[:, :3] * temperature, y)


def test_onnx_says_the_same_and_which_score_it_is(ruled: Path, tmp_path: Path) -> None:
    opened = dn.open_run(ruled)
    network = distilled_network(opened, unknown=True)
    x, _ = images(20, opened.preprocessing)
    done = export(
        opened, tmp_path / "m.onnx", Form(with_preprocessing=True, with_unknown=True), None
    )
    assert done.agreement.holds
    file = open_onnx(tmp_path / "m.onnx")
    assert json.loads(file.metadata["class_names"]) == list(NAMES)
    assert int(file.metadata["unknown"]) == 3
    found = onnx_scores(file, opened.preprocessing)(x.numpy())
    with torch.inference_mode():
        want = network.module(x).numpy()
    assert np.abs(found - want).max() <= TOLERANCE * np.ptp(want)
    assert onnx.load(str(tmp_path / "m.onnx")).graph.output[0].type.tensor_type.shape.dim[
        1
    ].dim_value == len(NAMES)


def test_every_runtime_counts_the_same_errors(ruled: Path, told, monkeypatch, tmp_path) -> None:
    want = told()
    rule = want["unknown"]
    assert rule["n_unknown"] == 24  # of val/
    assert set(rule["false_accept_by_folder"]) == {"stripes", "grey", "9"}
    share = sum(rule["false_accept_by_folder"].values()) / 3
    assert rule["false_accept"] == pytest.approx(share)
    assert want["accuracy"] == pytest.approx(sum(want["per_class"].values()) / 3)
    run_command(
        monkeypatch, "export", str(ruled), "--with-unknown", "--out", str(tmp_path / "m.onnx")
    )
    by_onnx = told("--runtime", "onnx", "--file", str(tmp_path / "m.onnx"))
    assert {**by_onnx, "runtime": "torch"} == want


@pytest.mark.skipif(not HAS_CC, reason="no C compiler")
def test_c_counts_the_same_errors(ruled: Path, told, tmp_path, quick_compiler) -> None:
    (tmp_path / "c").mkdir()
    done = export_c(dn.open_run(ruled), tmp_path / "c", "model", with_unknown=True)
    assert done.missions[0].classes == NAMES
    by_c = told("--runtime", "c", "--file", str(tmp_path / "c"), "--trust")
    assert {**by_c, "runtime": "torch"} == told()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CC, reason="no C compiler")
def test_c_in_8_bits_has_a_score_for_the_unknown(
    ruled: Path, run: Path, told, monkeypatch, capsys, tmp_path, quick_compiler
) -> None:
    data, out = str(run.parent / "data"), str(tmp_path / "c")
    words = ("export", str(ruled), "--format", "c", "--int8", "--with-unknown", "--data", data)
    run_command(monkeypatch, *words, "--max-loss", "100", "--out", out, "--json")
    exported = json.loads(capsys.readouterr().out)
    assert exported["classes"] == list(NAMES)
    assert "--with-unknown" in (tmp_path / "c" / "model.c").read_text().splitlines()[0]
    by_c = told("--runtime", "c", "--file", out, "--trust")["unknown"]
    want = told()["unknown"]
    assert by_c.keys() == want.keys()
    assert exported["different_decisions"] <= exported["compared_on"] / 4


def test_the_closed_set_is_measured_on_such_files_too(
    ruled: Path, run: Path, monkeypatch, tmp_path, capsys
) -> None:
    run_command(
        monkeypatch, "export", str(ruled), "--with-unknown", "--out", str(tmp_path / "m.onnx")
    )
    told = []
    for words in ((), ("--runtime", "onnx", "--file", str(tmp_path / "m.onnx"))):
        capsys.readouterr()
        data = str(run.parent / "data")
        run_command(monkeypatch, "evaluate", str(ruled), "--data", data, "--json", *words)
        told.append(json.loads(capsys.readouterr().out)["per_class"])
    assert told[0] == told[1]


def test_the_original_is_asked_on_the_same_images(ruled: Path, run: Path, told) -> None:
    found = told("--compare-original", "--model", net_of(run))["unknown"]["auroc_of_original"]
    assert set(found) == {
        "maximum softmax", "energy", "maximum softmax of all", "energy of all",
        "maximum softmax of the mission among all",
    }  # fmt: skip
    assert all(0 <= area <= 1 for area in found.values())


def test_what_was_exported_without_a_rule_is_refused(
    ruled: Path, run: Path, monkeypatch, tmp_path, capsys
) -> None:
    run_command(monkeypatch, "export", str(ruled), "--out", str(tmp_path / "m.onnx"))
    words = ("--data", str(run.parent / "data"), "--unknown", str(ruled.parent / "others"))
    file = ("--runtime", "onnx", "--file", str(tmp_path / "m.onnx"))
    assert refused(monkeypatch, "evaluate", str(ruled), *words, *file) == 2
    assert "--with-unknown" in capsys.readouterr().err
    assert refused(monkeypatch, "evaluate", str(run), *words) == 2
    assert "has no rule for unknown images" in capsys.readouterr().err
    assert refused(monkeypatch, "evaluate", str(run), "--compare-original") == 2
    switchable = ("--format", "c", "--switchable", "--with-unknown", "--out", str(tmp_path / "c"))
    assert refused(monkeypatch, "export", str(ruled), *switchable) == 2
