"""`mission`: from a run to a device, by the commands alone."""

import ctypes
import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

import distillnet as dn
from commands import run_command
from distillnet.deploy import distilled_network
from distillnet.deploy.c_folder import open_c
from distillnet.missions.packages import Missions
from untrained_run import SIDE, images, net_of, refused


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


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_a_package_becomes_a_mission_of_code_that_was_exported_before(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    home = run.parent
    best = ("--method", "best", "--no-split", "--target-macs", "1.5")
    for name, classes, how in (
        ("early", "ant,bee", ("--method", "paper", "--max-loss", "60")),
        ("late", "cat,ant", ("--method", "paper", "--max-loss", "60")),
        ("refitted", "bee,cat", best),
    ):
        run_command(
            monkeypatch, "distill", net_of(run), "--data", str(home / "data"), "--out", name,
            "--classes", classes, "--class-names", str(home / "names.tsv"), "--input-size",
            str(SIDE), "--mean", "0.5,0.4,0.3", "--std", "0.25,0.25,0.25", *how,
        )  # fmt: skip
    model = ("--model", net_of(run))
    switchable = ("export", "early", "--format", "c", "--switchable", *model)
    run_command(monkeypatch, *switchable, "--loadable", "--out", "c")
    run_command(monkeypatch, *switchable, "--out", "closed")
    run_command(monkeypatch, "mission", "keys", "--out", "k")
    for name, source, serial in (
        ("late", "late", "3"), ("zero", "late", "0"), ("fit", run, "1"), ("own", "refitted", "4"),
    ):  # fmt: skip
        run_command(
            monkeypatch, "mission", "pack", str(source), "--key", "k", "--serial", serial,
            "--base", "base", "--name", name, "--out", f"{name}.mission", *model,
        )  # fmt: skip
    capsys.readouterr()
    block = ("mission", "block", "--key", "k.pub")
    run_command(monkeypatch, *block, "late.mission", "--c", "c", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["serial"]) == ("late", 3)
    data = Path("late.block").read_bytes()
    assert told["bytes"] == len(data)
    Path("work").mkdir()
    native, _ = open_c(Path("c"), Path("work"))
    mission, held, room = native.mission("early"), ctypes.c_uint64(2), np.empty(10**6, np.uint8)
    load = getattr(native.library, f"{native.prefix}_load_mission")
    words = (ctypes.byref(mission), ctypes.byref(held), ctypes.c_void_p(room.ctypes.data))
    run_command(monkeypatch, *block, "own.mission", "--c", "c", "--base", "base")
    for name, file in (("late", "late.block"), ("refitted", "own.block")):
        data = Path(file).read_bytes()
        assert load(*words, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data))) == 0
        later = dn.open_run(name)
        x, _ = images(4, later.preprocessing)
        with torch.inference_mode():
            want = distilled_network(later).module(x).numpy()
        found = native.scores(mission, x.numpy())
        assert np.abs(found - want).max() <= 1e-4 * np.ptp(want)
    capsys.readouterr()
    both = ("export", "refitted", "--mission", "early", *switchable[2:])  # compiled in, too
    run_command(monkeypatch, *both, "--out", "both", "--json")
    assert [m["name"] for m in json.loads(capsys.readouterr().out)["missions"]] == [
        "refitted", "early",
    ]  # fmt: skip

    Path("cut.mission").write_bytes(Path("late.mission").read_bytes()[:-9])
    for package, code, why in (
        ("cut.mission", "c", "no trusted key"),
        ("zero.mission", "c", "--serial 1 or more"),
        ("fit.mission", "c", "name these with --base"),
        ("own.mission", "c", "name these with --base"),
        ("late.mission", "closed", "--loadable"),
    ):
        assert refused(monkeypatch, *block, package, "--c", code, "--out", "no.block") == 2
        assert why in capsys.readouterr().err
        assert not Path("no.block").exists()
    assert refused(monkeypatch, "export", "early", "--format", "c", "--loadable") == 2
