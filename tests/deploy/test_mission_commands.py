"""`mission`: from a run to a device, by the commands alone."""

import json
import stat
from pathlib import Path

import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.deploy import distilled_network
from distillnet.missions.packages import Missions
from untrained_run import images, net_of, refused


def test_a_run_comes_to_a_device_and_says_there_what_it_said(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command(monkeypatch, "mission", "keys", "--out", "k")
    assert stat.S_IMODE(Path("k").stat().st_mode) == 0o600
    assert refused(monkeypatch, "mission", "keys", "--out", "k") == 2
    Path("device").mkdir()
    base = "device/weights.safetensors"
    for serial in ("1", "2"):
        run_command(
            monkeypatch, "mission", "pack", str(run), "--key", "k", "--serial", serial, "--base",
            base, "--name", "day", "--out", f"{serial}.mission", "--model", net_of(run),
        )  # fmt: skip
    for words in (
        ("verify", "2.mission", "--base", base),
        ("apply", "2.mission", "--device", "device"),
    ):
        capsys.readouterr()
        run_command(monkeypatch, "mission", *words, "--key", "k.pub", "--json")
        told = json.loads(capsys.readouterr().out)
        assert (told["name"], told["serial"]) == ("day", 2)
    older = ("mission", "apply", "1.mission", "--device", "device", "--key", "k.pub")
    assert refused(monkeypatch, *older) == 2
    assert "expected a larger number" in capsys.readouterr().err
    assert Path("device/missions/day.mission").read_bytes() == Path("2.mission").read_bytes()
    run_command(
        monkeypatch, "mission", "diff", "1.mission", "2.mission", "--key", "k.pub", "--json"
    )
    assert json.loads(capsys.readouterr().out)["tensors"]["changed"] == 0
    opened = dn.open_run(run)
    x, _ = images(8, opened.preprocessing)
    missions = Missions.of_device("device", ["k.pub"])
    assert missions.classes("day") == opened.mission.names
    assert missions.preprocessing("day") == opened.preprocessing
    with torch.inference_mode():
        want = distilled_network(opened).module(x)
    torch.testing.assert_close(missions.scores("day", x), want, rtol=1e-4, atol=1e-4)
