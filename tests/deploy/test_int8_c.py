"""A run becomes C in 8 bits: calibrated on its images, judged on them, and read back."""

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest

import distillnet as dn
from commands import run_command
from distillnet.deploy import distilled_network
from distillnet.deploy.agreement import as_pixels
from distillnet.deploy.c_folder import open_c
from distillnet.deploy.int8.c import BLOCKS
from selection import exhaustive
from targets import tool
from untrained_run import CLASSES, SIDE, net_of, refused


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_a_folder_in_8_bits_is_written_judged_and_read(
    run: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    tool("cc")
    data, out = str(run.parent / "data"), tmp_path / "c8"
    run_command(monkeypatch, "export", str(run), "--format", "c", "--int8", "--data", data,
                "--out", str(out), "--max-loss", "100", "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert (told["precision"], told["classes"]) == ("int8", list(CLASSES[:3]))
    assert told["weight_bytes"] == (out / "weights.bin").stat().st_size
    assert json.loads((out / "about.json").read_text())["precision"] == "int8"
    run_command(monkeypatch, "evaluate", str(run), "--runtime", "c", "--file", str(out),
                "--trust", "--json")  # fmt: skip
    seen = json.loads(capsys.readouterr().out)
    assert seen["accuracy"] == told["accuracy"]
    assert seen["n"] == told["compared_on"]


@pytest.mark.slow
def test_what_8_bits_in_c_cannot_be_is_refused(run: Path, monkeypatch, capsys) -> None:
    asked = ["export", str(run), "--format", "c"]
    data = ["--data", str(run.parent / "data")]
    cases = [
        (["--int8", "--fp16"], "--int8"),
        (["--int8", "--switchable", "--loadable"], "--loadable"),
        (["--int8", "--mission", str(run), *data], "--switchable"),
        (["--int8", "--switchable", "--with-unknown", *data], "--with-unknown"),
        (["--int8", "--switchable", "--model", net_of(run), *data], "--no-split"),
    ]
    for more, told in cases:
        assert refused(monkeypatch, *asked, *more) == 2, more
        assert told in capsys.readouterr().err, more


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("target", exhaustive(sorted(BLOCKS), "cortex-m".__eq__))
def test_runs_of_one_network_become_missions_in_8_bits(
    run: Path, target: str, monkeypatch, capsys, tmp_path: Path
) -> None:
    tool("cc")
    home = run.parent
    data = ["--data", str(home / "data")]
    methods = {
        "early": ["paper", "--max-loss", "60"],
        "late": ["best", "--no-split", "--no-labels"],
    }
    for name, classes in (("early", "ant,bee"), ("late", "cat,ant")):
        run_command(
            monkeypatch, "distill", net_of(run), *data, "--out", str(tmp_path / name),
            "--classes", classes, "--class-names", str(home / "names.tsv"), "--input-size",
            str(SIDE), "--mean", "0.5,0.4,0.3", "--std", "0.25,0.25,0.25", "--keep-input-size",
            "--method", *methods[name],
        )  # fmt: skip
    early, late, out = (str(tmp_path / name) for name in ("early", "late", "c8"))
    capsys.readouterr()
    run_command(monkeypatch, "export", early, "--format", "c", "--int8", "--switchable",
                "--mission", late, "--model", net_of(run), "--target", target, *data,
                "--out", out, "--max-loss", "100", "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["switchable"]
    assert [(m["name"], m["classes"]) for m in told["missions"]] == [
        ("early", ["ant", "bee"]), ("late", ["cat", "ant"])
    ]  # fmt: skip
    assert told["missions"][0]["accuracy"] == told["accuracy"]
    assert all(m["mac_ratio"] > 1 for m in told["missions"])
    for path, mission in zip((early, late), told["missions"], strict=True):
        run_command(monkeypatch, "evaluate", path, "--runtime", "c", "--trust", "--file", out,
                    "--json")  # fmt: skip
        seen = json.loads(capsys.readouterr().out)
        assert (seen["accuracy"], seen["n"]) == (mission["accuracy"], mission["compared_on"])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_images_of_bytes_are_what_normalised_ones_are(
    run: Path, monkeypatch, tmp_path: Path
) -> None:
    tool("cc")
    data, out = str(run.parent / "data"), tmp_path / "c8"
    run_command(monkeypatch, "export", str(run), "--format", "c", "--int8", "--data", data,
                "--target", "cortex-m", "--out", str(out), "--max-loss", "100")  # fmt: skip
    how = distilled_network(dn.open_run(run)).preprocessing
    native, missions = open_c(out, tmp_path)
    bound = native.mission(next(iter(missions)))
    pixels = np.random.default_rng(0).integers(0, 256, (*how.input_size, 3)).astype(np.float32)
    x = (pixels / np.float32(how.divisor) - np.float32(how.mean)) / np.float32(how.std)
    x_nchw = np.ascontiguousarray(x.transpose(2, 0, 1)[None])
    rgb = as_pixels(x_nchw, how)[0]
    assert np.array_equal(rgb, pixels.astype(np.uint8))
    run_pixels = native.library.model_run_pixels
    run_pixels.argtypes = native.run.argtypes  # type: ignore[attr-defined]
    scores = np.empty(bound.n_outputs, np.float32)
    status = run_pixels(
        ctypes.addressof(bound), native.address, native.arena.nbytes, rgb.ctypes.data,
        scores.ctypes.data,
    )  # fmt: skip
    assert status == 0
    assert np.array_equal(scores, native.scores(bound, x_nchw)[0])


def test_targets_of_the_command_line_are_those_of_the_engine() -> None:
    from distillnet.cli.commands.export_options import Target

    assert {target.value for target in Target} == set(BLOCKS)
