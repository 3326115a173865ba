"""Nothing that a command writes names a folder of the machine that it ran on."""

import getpass
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import distillnet
from distillnet.deploy import extras
from distillnet.search import candidates
from invocations import DISTILL, OPTIONS, Cli


def _telling(home: Path) -> dict[str, bytes]:
    """What would tell whose machine it was."""
    telling = {
        "the folder of the data": str(home),
        "the package": str(Path(distillnet.__file__).parent),
        "the libraries": str(Path(os.__file__).parent),
        "the environment": sys.prefix,
        "the user's folder": str(Path.home()) + "/",
        "the user": f"/{getpass.getuser()}/",
    }
    return {what: text.encode() for what, text in telling.items()}


def _interrupt(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_no_file_names_a_folder_of_this_machine(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = [
        str(home / word) if word in ("photos", "many", "run", "atlas") else word for word in DISTILL
    ]
    absolute[1] = f"{home / 'net.py'}:net"
    collect = ("collect", absolute[1], *OPTIONS, "--data", str(home / "many"), "--out", "atlas")
    assert cli(*absolute, "--val", str(home / "many")).status == 0
    assert cli(*collect).status == 0
    run = str(home / "run")
    for words in (
        ("--format", "c"), ("--format", "pt2"), ("--format", "onnx"), ("--fp16",),
        ("--with-preprocessing", "--out", str(home / "run" / "p.onnx")),
    ):  # fmt: skip
        done = cli("export", run, *words)
        assert done.status == 0, done.err
    assert (
        cli("distill", "--from", run, "--max-loss", "100", "--out", str(home / "taken")).status == 0
    )
    refits = iter([candidates.refit] * 3)
    monkeypatch.setattr(candidates, "refit", lambda *a, **o: next(refits, _interrupt)(*a, **o))
    assert cli(*absolute[:-1], str(home / "stopped")).status == 130
    seen = set()
    for folder in ("run", "atlas", "taken", "stopped"):
        for path in filter(Path.is_file, (home / folder).rglob("*")):
            for what, text in _telling(home).items():
                assert text not in path.read_bytes(), f"{path} names {what}"
            seen.add(f"{folder}/{path.relative_to(home / folder)}")
    assert len(seen) > 25
    assert {"run/times.json", "run/images.safetensors", "stopped/unfinished/search.json"} <= seen


@pytest.mark.slow
def test_nor_does_any_file_of_missions_packages_and_pages(home: Path, cli: Cli) -> None:
    def at(*names: str) -> list[str]:
        return [str(home / name) for name in names]

    net, data = f"{home / 'net.py'}:net", ("--data", *at("photos"))
    (run,) = at("cut")
    weights = ("--model", net)
    for words in (
        ("collect", net, *OPTIONS, "--data", *at("many"), "--out", *at("first")),
        ("collect", net, *OPTIONS, "--data", *at("photos/val"), "--out", *at("second")),
        ("merge", *at("first", "second"), "--out", *at("both")),
        ("retarget", *at("both"), "--classes", "0,2", *weights, "--target-macs", "1.2",
         "--out", run),
        ("unknown", run, "--data", *at("many")),
        ("bench", run, *weights, "--runtime", "torch", "--seconds", "0"),
        ("report", run, *weights, *data),
        ("pack", net, *OPTIONS, *data, "--max-loss", "100", "--out", *at("net.dnp")),
        ("unpack", *at("net.dnp"), "--out", *at("net.safetensors")),
        ("mission", "keys", "--out", *at("key")),
        ("mission", "pack", run, "--key", *at("key"), "--serial", "1", "--base", *at("base"),
         *weights, "--out", *at("cut.mission")),
        ("export", run, "--format", "c", "--with-unknown"),
        ("timings", "--kit", *at("kit")),
    ):  # fmt: skip
        done = cli(*words)
        assert done.status == 0, (words, done.err)
    written = ("first", "second", "both", "cut", "kit", "net.dnp", "net.safetensors", "base")
    seen = {
        str(path.relative_to(home))
        for name in (*written, "cut.mission", "key.pub")
        for path in (home / name, *(home / name).rglob("*"))
        if path.is_file()
    }
    for path in seen:
        content = (home / path).read_bytes()
        for what, text in _telling(home).items():
            assert text not in content, f"{path} names {what}"
    made = {"both/evidence.json", "both/0.evidence.safetensors", "cut/unknown.json"}
    made |= {"cut/bench.json", "cut/report.html", "cut/c/model.c", "net.dnp", "base"}
    assert made | {"cut.mission", "kit/kit.json", "net.safetensors"} <= seen


def test_images_that_are_not_found_again_are_not_replaced_by_others(home: Path, cli: Cli) -> None:
    """Of the validation images that are gone, those of the search must not take the place."""
    shutil.copytree(home / "photos" / "val", home / "apart")
    assert cli(*DISTILL, "--val", "apart").status == 0
    assert json.loads(cli("export", "run", "--json").out)["real_images"]
    shutil.rmtree(home / "apart")
    done = cli("export", "run", "--json")
    assert "comparing on noise" in done.err
    assert not json.loads(done.out)["real_images"]


def test_what_lies_elsewhere_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillnet.job.layout import place_of
    from distillnet.job.runs import relative_sources

    users = tmp_path / "home"
    monkeypatch.setenv("HOME", str(users / "me"))
    run, beside, other = (users / name for name in ("me/runs/a", "me/photos", "you/photos"))
    for folder in (run, beside, other):
        folder.mkdir(parents=True)
    sources = {"data": beside, "val": other, "search": "/data/birds", "weights": None}
    kept = relative_sources(sources, run)
    assert kept == {
        "data": "../../photos", "val": "(elsewhere)", "search": "(elsewhere)", "weights": None,
    }  # fmt: skip
    # A run that is taken from this one says the same, and names no place that there never was.
    (users / "me/runs/b").mkdir()
    again = {name: place_of(run, path) for name, path in kept.items()}
    assert relative_sources(again, users / "me/runs/b") == kept


def test_a_link_beside_the_run_is_found_again_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillnet.job.runs import relative_sources

    monkeypatch.setenv("HOME", str(tmp_path / "users" / "me"))
    home = tmp_path / "users" / "me" / "work"
    (home / "run").mkdir(parents=True)
    (home / "weights.bin").symlink_to("/models/weights.bin")
    kept = relative_sources({"weights": home / "weights.bin"}, home / "run")
    assert kept == {"weights": "../weights.bin"}


def test_telemetry_is_off_before_a_session_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    told = []
    monkeypatch.setattr(runtime, "disable_telemetry_events", lambda: told.append("off"))
    extras.need("onnxruntime", "onnx")
    assert told == ["off"]
