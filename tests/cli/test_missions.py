"""From images to an atlas and on to missions, by the commands; several processes share a pass."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from invocations import COLLECT, OPTIONS, SIDE, Cli, assert_refused

RANKS_SAID = "ranks.txt"  # what processes that share a pass wrote, to be read where they fail


def _evidence(atlas: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(atlas.glob("*.evidence.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.name}/{name}"] = tensor
    return found


def test_an_atlas_becomes_missions(cli: Cli, home: Path) -> None:
    assert cli(*COLLECT, "--classes", "0,1").status == 0
    draw = np.random.default_rng(5)
    for name in ("more/1", "more/2"):
        (home / name).mkdir(parents=True, exist_ok=True)
        for i in range(6):
            pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(home / name / f"{i}.png")
    others = {"photos": "more", "atlas": "other"}
    assert cli(*(others.get(word, word) for word in COLLECT)).status == 0
    told = cli("merge", "atlas", "other", "--out", "all", "--json")
    assert told.status == 0, told.err
    assert set(json.loads(told.out)["counts"]) == {"0", "1", "2"}
    named = ("--classes", "0,2", "--model", "net.py:net", "--target-macs", "1.2")
    quoted = cli("plan", "all", *named, "--add", "1", "--json")
    assert quoted.status == 0, quoted.err
    done = cli("retarget", "all", *named, "--out", "run", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["mac_ratio"] == json.loads(quoted.out)["mac_ratio"] >= 1.2
    assert result["n_images"]["val"] == 0
    assert cli("evaluate", "run", "--data", "photos").status == 0
    checked = cli("retarget", "all", *named, "--data", "photos", "--out", "seen", "--json")
    assert json.loads(checked.out)["n_images"]["val"] > 0


def test_images_put_the_threshold_of_a_rule_from_an_atlas(cli: Cli, home: Path) -> None:
    """Those that are not reported on, and the same that `unknown` finds for the run."""
    many = tuple("many" if word == "photos" else word for word in COLLECT)
    assert cli(*many).status == 0
    named = ("--classes", "0,2", "--model", "net.py:net", "--target-macs", "1.2", "--with-unknown")
    blind = cli("retarget", "atlas", *named, "--out", "blind")
    assert "is a guess" in blind.err
    scarce = cli("retarget", "atlas", *named, "--data", "photos", "--out", "scarce")
    assert "is a guess" in scarce.err
    seeing = cli("retarget", "atlas", *named, "--data", "many", "--out", "run", "--json")
    assert json.loads(seeing.out)["n_images"]["val"] == 40
    assert "5 % of 40 images of --data (one half)" in seeing.err

    def rule(run: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((home / run / "unknown.json").read_text())
        return found

    assert rule("run")["weight"] == rule("blind")["weight"] == rule("scarce")["weight"]
    assert rule("run")["bias"] != rule("blind")["bias"] == rule("scarce")["bias"]
    figures = rule("run")["figures"]
    assert isinstance(figures, dict)
    assert (figures["n"], figures["n_unknown"]) == (40, 0)
    placed = rule("run")["bias"]
    again = cli("unknown", "run", "--threshold-only", "--data", "many", "--json")
    told = json.loads(again.out)
    assert (told["n"], told["false_reject"]) == (40, 1 / 40)  # the second smallest of 40
    assert rule("run")["bias"] == pytest.approx(placed, abs=1e-4)
    assert rule("run")["weight"] == rule("blind")["weight"]


def test_inspect_tells_by_layer_and_by_filter_who_keeps_it(cli: Cli, home: Path) -> None:
    assert cli(*COLLECT).status == 0
    asked = ("inspect", "net.py:net", "--atlas", "atlas")
    told = json.loads(cli(*asked, "--json").out)
    assert set(told) == {"atlas", "model", "share", "classes", "layers"}
    first = told["layers"][0]
    assert first["filters"] == 6
    assert set(first["by_class"]) == {"0", "1", "2"}
    for number in range(6):
        of_one = json.loads(cli(*asked, "--filter", "0:" + str(number), "--json").out)
        assert [c["name"] for c in of_one["by"]] == ["0", "1", "2"]
        assert all(1 <= c["rank"] <= 6 for c in of_one["by"])
        shown = cli(*asked, "--filter", f"0:{number}").out
        assert shown.count(" yes ") == sum(c["keeps"] for c in of_one["by"])
        for c in of_one["by"]:
            first["by_class"][c["name"]] -= c["keeps"]
    assert set(first["by_class"].values()) == {0}
    for words, why in (
        (("--atlas", "atlas", "--filter", "0"), "a layer and a number"),
        (("--atlas", "atlas", "--filter", "0:6"), "expected 0 to 5"),
        (("--filter", "0:1"), "name it with --atlas"),
        (("--atlas", "photos"), "is not an atlas"),
    ):
        refused = cli("inspect", "net.py:net", *words)
        assert_refused(refused)
        assert why in refused.err
    assert_refused(cli("inspect"))


def test_an_atlas_runs_no_code_that_it_names(cli: Cli, home: Path) -> None:
    assert cli(*COLLECT).status == 0
    refused = cli("retarget", "atlas", "--classes", "0,1", "--out", "run")
    assert_refused(refused)
    assert not (home / "run").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--classes", "0,3"), "no images of 3"),
        (("--classes", "0,nobody"), "nobody"),
        (("--classes", "0,nobody"), "atlas is of 2 classes: "),
        (("--classes", "0,1", "--target-macs", "0.5"), "expected 1 or more"),
    ],
)
def test_what_an_atlas_cannot_give_is_said(
    args: tuple[str, ...], words: str, cli: Cli, home: Path
) -> None:
    assert cli(*COLLECT, "--classes", "0,1").status == 0
    for command in (("plan", "atlas"), ("retarget", "atlas", "--out", "run")):
        refused = cli(*command, *args, "--model", "net.py:net")
        assert_refused(refused)
        assert words in refused.err


def _torchrun(home: Path, ranks: int, *more: str) -> "subprocess.Popen[bytes]":
    words = ("collect", "net.py:net", *OPTIONS, "--data", "photos", "--out", "shared", *more)
    with (home / RANKS_SAID).open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             str(ranks), "-m", "distillnet", *words],
            cwd=home, start_new_session=True, stderr=said, stdout=said,
        )  # fmt: skip


def _assert_ranks_finish(home: Path, ranks: int, *more: str) -> None:
    status = _torchrun(home, ranks, *more).wait(300)
    assert status == 0, (home / RANKS_SAID).read_text(errors="replace")


@pytest.mark.slow
def test_ranks_give_what_one_process_gives(cli: Cli, home: Path) -> None:
    assert cli(*COLLECT).status == 0
    one = _evidence(home / "atlas")
    _assert_ranks_finish(home, 2)
    _assert_alike(_evidence(home / "shared"), one)


@pytest.mark.slow
def test_killed_ranks_are_gone_on_with(cli: Cli, home: Path) -> None:
    assert cli(*COLLECT).status == 0
    killed, parts = _torchrun(home, 2), home / "shared" / "unfinished"
    until = time.monotonic() + 300
    while not list(parts.glob("*.safetensors")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    _end_children_in(home)
    if (home / "shared" / "atlas.json").exists():
        pytest.skip("the pass was over before it could be killed")
    _assert_ranks_finish(home, 3, "--resume")
    _assert_alike(_evidence(home / "shared"), _evidence(home / "atlas"))


def _end_children_in(home: Path) -> None:
    """Ranks are in sessions of their own: end those that work in this test's folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = (entry / "cwd").resolve() == home.resolve()
            if here and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def _assert_alike(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, b in expected.items():
        a = found[name]
        if "/need/" in name:
            assert float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())  # type: ignore[operator,union-attr]
        elif name.endswith(("keys", "images")):
            assert bool((a == b).all())  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode")
def test_an_atlas_of_any_name_and_of_photos_that_are_none(cli: Cli, home: Path) -> None:
    """Its own name is no UTF-8; among the photos are links to nothing, in circles, and a pipe."""
    shutil.copytree(home / "photos" / "train", home / "strange")
    (home / "strange" / "0" / "gone.png").symlink_to("nowhere.png")
    (home / "strange" / "0" / "up").symlink_to("..")
    os.mkfifo(home / "strange" / "1" / "pipe.png")
    name = os.fsdecode(b"\xe4tlas\xff\n.png")
    shutil.copy(home / "strange" / "1" / "000.png", home / "strange" / "1" / name)
    words = [
        name if word == "atlas" else "strange" if word == "photos" else word for word in COLLECT
    ]
    done = cli(*words, "--max-unreadable", "20", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["unreadable"] == 2
    assert told["counts"] == {"0": 8, "1": 9, "2": 8}
    named = ("--classes", "0,2", "--model", "net.py:net", "--target-macs", "1.2")
    done = cli("retarget", name, *named, "--out", "run")
    assert done.status == 0, done.err
