"""``pack`` and ``unpack``: what comes back computes what was measured, whatever was packed."""

import json
from pathlib import Path

import pytest
import torch

from distillnet.models import load_model
from distillnet.models.packed import read_packed
from distillnet.models.programs import load_program
from distillnet.models.weights import read_weights
from invocations import OPTIONS, SEARCH, SIDE, Cli, assert_refused

PACK = ("pack", "net.py:net", *OPTIONS, "--data", "photos", "--out", "net.dnp", "--json")
MEAN = {"input_size": SIDE, "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize("method", ["best", "paper"])
def test_weights_come_back_as_the_network_that_was_measured(
    method: str, home: Path, cli: Cli
) -> None:
    done = cli(*PACK, "--method", method)
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["bytes"] == (home / "net.dnp").stat().st_size < told["steps"][0]["bytes"]
    assert [s["name"] for s in told["steps"]][1:] == ["pruned", "shared values", "entropy-coded"]
    assert told["steps"][2]["accuracy"] == told["steps"][3]["accuracy"]
    assert told["kind"] == "weights"
    assert told["expected_loss_pp"] <= 1.0

    assert cli("unpack", "net.dnp", "--out", "net.safetensors").status == 0
    unpacked, packed = read_weights(home / "net.safetensors"), read_weights(home / "net.dnp")
    assert set(unpacked) == set(packed)
    assert all(torch.equal(unpacked[name], packed[name]) for name in packed)
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    y, z = (
        load_model(f"{home}/net.py:net", weights=home / name, **MEAN).module(x)
        for name in ("net.dnp", "net.safetensors")
    )
    assert torch.equal(y, z)
    original = load_model(f"{home}/net.py:net", **MEAN).module(x)
    assert 0 < (y - original).abs().max() < (original.max() - original.min())


def test_a_run_comes_back_and_is_taken_for_one_packed(home: Path, cli: Cli) -> None:
    assert cli(*SEARCH).status == 0
    done = cli("pack", "run", "--data", "photos", "--out", "run.dnp", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["kind"] == "run"
    assert told["steps"][0]["name"] == "the original"
    assert cli("unpack", "run.dnp", "--out", "again").status == 0
    for words in (("report", "run.dnp"), ("unknown", "run.dnp"), ("distill", "--from", "run.dnp")):
        done = cli(*words, "--out", "x") if words[0] != "unknown" else cli(*words)
        assert_refused(done)
        assert "`distillnet unpack run.dnp --out RUN` makes one of it" in done.err
    done = cli("pack", "run", "--seed", "3", *OPTIONS, "--out", "x.dnp")
    assert_refused(done)
    assert "found --input-size, --mean, --std, --seed with the run run" in done.err
    (home / "again" / "model.onnx").write_bytes(b"of the other")
    assert_refused(cli("unpack", "run.dnp", "--out", "again"))
    assert cli("unpack", "run.dnp", "--out", "again", "--overwrite").status == 0
    assert not (home / "again" / "model.onnx").exists()
    answers = []
    for run in ("run.dnp", "again"):
        found = cli("evaluate", run, "--data", "photos", "--json")
        assert found.status == 0, found.err
        answers.append(json.loads(found.out)["accuracy"])
    assert answers[0] == answers[1] == told["steps"][-1]["accuracy"]
    before, after = (load_program(home / r / "model.pt2").module for r in ("run", "again"))
    shapes = [sorted(tuple(p.shape) for p in m.parameters()) for m in (before, after)]
    assert len(shapes[0]) <= len(shapes[1])  # it may have biases more
    # So small a network of random weights does as well with none at all.
    finely = ("--coarseness", "0.005", "--out", "fine.dnp")
    assert cli("pack", "run", "--data", "photos", *finely).status == 0
    done = cli("export", "fine.dnp", "--format", "c", "--packed", "--out", "c", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["packed_bytes"] > 0  # 4 kB of tables alone, which so small a network is not worth
    assert told["weight_bytes"] == (home / "c" / "weights.bin").stat().st_size
    assert "model_unpack" in (home / "c" / "weights.c").read_text()
    assert told["missions"][0]["name"] == "fine"
    assert_refused(cli("export", "run", "--format", "c", "--packed"))
    assert_refused(cli("export", "run.dnp", "--packed", "--out", "model.onnx"))
    assert_refused(cli("bench", "run.dnp"))
    assert_refused(cli("export", "run.dnp"))


def test_what_is_no_packed_file_is_refused(home: Path, cli: Cli) -> None:
    (home / "no.dnp").write_bytes(b"\x89DNPACK\n" + bytes(99))
    for words in (
        ("unpack", "no.dnp", "--out", "x"),
        ("unpack", "net.py", "--out", "x"),
        ("unpack", "nowhere", "--out", "x"),
        ("evaluate", "no.dnp", "--data", "photos"),
        ("pack", "net.py:net", *OPTIONS, "--out", "x"),
        ("pack", "net.py:net", *OPTIONS, "--data", "nowhere", "--out", "x"),
    ):
        assert_refused(cli(*words))
        assert not (home / "x").exists()


def test_packed_weights_are_no_run(home: Path, cli: Cli) -> None:
    assert cli(*PACK, "--coarseness", "0.01").status == 0
    assert read_packed(home / "net.dnp").about["setting"] == 0.01
    refused = cli("evaluate", "net.dnp", "--data", "photos")
    assert_refused(refused)
    assert "packed weights" in refused.err
