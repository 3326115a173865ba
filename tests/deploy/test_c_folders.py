"""A folder of C says what torch says, and refuses what it cannot hold."""

import json
from pathlib import Path

import pytest

import distillnet as dn
from commands import run_command
from distillnet.deploy import TOLERANCE
from untrained_run import CLASSES, SIDE, net_of, refused


@pytest.mark.slow
@pytest.mark.usefixtures("peaks")
def test_a_folder_of_c_says_what_torch_says(run: Path, monkeypatch, capsys, tmp_path: Path) -> None:
    data = str(run.parent / "data")
    for prefix in ("first", "bird"):  # the second takes the place of the first
        run_command(monkeypatch, "export", str(run), "--format", "c", "--prefix", prefix, "--json")
        told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(run / "c")
    assert [m["classes"] for m in told["missions"]] == [list(CLASSES[:3])]
    assert told["missions"][0]["difference"] <= told["tolerance"] == TOLERANCE
    assert told["missions"][0]["mac_ratio"] == dn.open_run(run).result["mac_ratio_c"] > 1
    assert told["arena_share"] < 1.05
    assert told["weight_bytes"] == (run / "c" / "weights.bin").stat().st_size
    promised = {"model.h", "model.c", "weights.bin", "weights.c", "missions", "test_vector.c",
                "CMakeLists.txt", "Makefile", "README.md", "about.json",
                "library.properties", "src", "zephyr",
                "preprocess.c"}  # fmt: skip
    assert {path.name for path in (run / "c").iterdir()} == promised
    source = (run / "c" / "model.c").read_text()
    assert "--format c --prefix bird" in source
    about = json.loads((run / "c" / "about.json").read_text())
    assert "of the weights" in about["provenance"]["model_license"]
    assert "Apache License 2.0" in (run / "c" / "README.md").read_text()
    assert "first_run" not in source
    values = []
    for runtime in ("torch", "c"):
        run_command(monkeypatch, "evaluate", str(run), "--data", data, "--runtime", runtime,
                    *(["--trust"] if runtime == "c" else []), "--json")  # fmt: skip
        values.append(json.loads(capsys.readouterr().out))
    assert [v.pop("runtime") for v in values] == ["torch", "c"]
    assert values[0] == values[1]
    run_command(monkeypatch, "bench", str(run), "--runtime", "c", "--seconds", "0", "--batch", "1",
                "--model", net_of(run), "--out", str(tmp_path / "bench.json"),
                "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert [(e["network"], e["batch"]) for e in told["entries"]] == [
        (network, 1) for network in ("original", "distilled")
    ]
    assert set(told["time_ratio"]) == {"c"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_microcontrollers_get_a_smaller_arena(run: Path, monkeypatch, capsys, tmp_path) -> None:
    told = {}
    for target in ("vectors", "cortex-m"):
        out = tmp_path / target
        run_command(monkeypatch, "export", str(run), "--format", "c", "--target", target,
                    "--out", str(out), "--json")  # fmt: skip
        told[target] = json.loads(capsys.readouterr().out)
    assert told["cortex-m"]["arena_bytes"] < told["vectors"]["arena_bytes"]
    assert told["cortex-m"]["missions"] == told["vectors"]["missions"]  # the difference from torch
    assert "--target cortex-m" in (tmp_path / "cortex-m" / "model.c").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_runs_of_one_network_become_missions(
    run: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    home = run.parent
    for name, classes in (("early", "ant,bee"), ("late", "cat,ant")):
        run_command(
            monkeypatch, "distill", net_of(run), "--data", str(home / "data"),
            "--out", str(tmp_path / name), "--classes", classes, "--class-names",
            str(home / "names.tsv"), "--input-size", str(SIDE), "--mean", "0.5,0.4,0.3", "--std",
            "0.25,0.25,0.25", "--method", "paper", "--max-loss", "60",
        )  # fmt: skip
    early, late, out = (str(tmp_path / name) for name in ("early", "late", "c"))
    capsys.readouterr()
    model = ["--model", net_of(run)]
    run_command(monkeypatch, "export", early, "--format", "c", "--switchable", "--mission", late,
                *model, "--out", out, "--json")  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["switchable"]
    assert [(m["name"], m["classes"]) for m in told["missions"]] == [
        ("early", ["ant", "bee"]), ("late", ["cat", "ant"])
    ]  # fmt: skip
    assert all(m["difference"] <= TOLERANCE for m in told["missions"])
    for path in (early, late):
        values = []
        for options in (["--runtime", "c", "--trust", "--file", out], ["--runtime", "torch"]):
            data = str(home / "data")
            run_command(monkeypatch, "evaluate", path, "--data", data, *options, "--json")
            values.append(json.loads(capsys.readouterr().out)["per_class"])
        assert values[0] == values[1]
    cases = [
        (["export", str(run), "--format", "c", "--switchable", *model, "--out", out],
         "--no-split"),
        (["export", early, "--format", "c", "--mission", late, "--out", out], "--switchable"),
        (["export", early, "--switchable"], "--format c"),
        (["export", early, "--format", "c", "--int8", "--switchable", "--loadable"],
         "needs float32"),
        (["export", early, "--format", "c", "--max-loss", "2"], "found --max-loss with --format c"),
        (["export", early, "--prefix", "net"], "need --format c"),
        (["export", early, "--format", "c", "--prefix", "if"], "--prefix"),
        (["evaluate", str(run), "--data", str(home / "data"), "--runtime", "c", "--trust",
          "--file", out],
         "Export this run"),
        (["evaluate", early, "--data", str(home / "data"), "--runtime", "c", "--trust", "--file",
          early],
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
