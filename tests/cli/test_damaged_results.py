"""Runs and atlases from anybody: what is wrong with their files is said, and not believed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from commands import run_command
from distillnet.cut.bitmaps import pack
from distillnet.files.manifest import read_manifest, seal
from invocations import COLLECT, DISTILL, Cli, assert_refused

Change = Callable[[dict[str, Any]], object]
EVALUATE = ("evaluate", "run", "--data", "photos")


def _sealed_again(folder: Path) -> None:
    """As somebody would who wants the folder to be believed."""
    seal(folder, read_manifest(folder).files)


def _edit(path: Path, change: Change | str, value: object = None) -> None:
    if isinstance(change, str):
        path.write_text(change)
        return
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _set(*keys: str | int, to: object) -> Change:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


def _drop(*keys: str) -> Change:
    def change(values: Any) -> None:
        for key in keys[:-1]:
            values = values[key]
        del values[keys[-1]]

    return change


def _nested(open_: str, close: str) -> str:
    return '{"format": 4, "a": ' + open_ * 100_000 + close * 100_000 + "}"


MISSION: dict[str, tuple[Change | str, str]] = {
    "classes beyond all bounds": (_set("n_classes", to=300_000_000), "100000"),
    "a class below 0": (_set("classes", 0, "index", to=-1), ">= 0 - at '$.classes[0].index'"),
    "a class beyond the last": (_set("classes", 0, "index", to=99), "class 99 of 4"),
    "a class twice": (lambda m: m["classes"].append(m["classes"][0]), "expected each once"),
    "a name twice": (_set("classes", 1, "name", to="0"), "expected each once"),
    "no classes": (_set("classes", to=[]), "length >= 1"),
    "not a number": (_set("classes", 0, "index", to="0"), "Expected 'int', got 'str'"),
    "interpolation": (_set("preprocessing", "interpolation", to="x"), "Invalid enum value 'x'"),
    "an input of no size": (_set("preprocessing", "input_size", to=[0, 16]), ">= 1"),
    "an input too large": (_set("preprocessing", "input_size", to=[16, 10**9]), "<= 16384"),
    "no deviation": (_set("preprocessing", "std", to=[0.5, 0.5, 0]), "> 0.0"),
    "too few means": (_set("preprocessing", "mean", to=[0.5]), "1 means and 3 deviations"),
    "missing": (_drop("preprocessing"), "missing required field 'preprocessing'"),
    "missing inside": (_drop("preprocessing", "mean"), "missing required field 'mean'"),
    "unknown": (_set("command", to="rm"), "unknown field 'command'"),
    "an unknown source": (_set("sources", "script", to="x"), "Invalid enum value 'script'"),
    "no hash": (_set("weights_sha256", to="zero"), "regex"),
    "another format": (_set("format", to=99), "of format 99, written by a newer version"),
    "an older format": (_set("format", to=3), "of format 3, written by an older version"),
    "no format": (_drop("format"), "missing required field 'format'"),
    "deep lists": (_nested("[", "]"), "nested too deep"),
    "deep objects": (_nested('{"a":', "}").replace("{}", "{") + "}" * 9, "nested too deep"),
    "not JSON": ("mission", "malformed"),
    "no object": ("[]", "Expected 'object'"),
    "cut off": ('{"format": 4, "n_classes": [', "truncated"),
    "infinite": ('{"format": 4, "seed": 1e999}', "out of range"),
    "not a number of IEEE": ('{"format": NaN}', "malformed"),
}
RESULT: dict[str, tuple[Change | str, str]] = {
    "classes beyond all bounds": (_set("n_classes", to=300_000_000), "100000"),
    "an accuracy above 1": (_set("baseline", "accuracy", to=1.5), "<= 1.0"),
    "an accuracy of another class": (
        _set("distilled", "per_class", to={"9": 1.0}),
        "accuracies of ['9']",
    ),
    "a budget that is a text": (_set("budget", "max_loss_pp", to="much"), "Expected 'float'"),
    "no search": (_drop("search", "loss_pp"), "missing required field 'loss_pp'"),
    "no losses of classes": (_set("search", "class_losses_pp", to=[]), "no losses of classes"),
    "a ratio of nothing": (_set("mac_ratio", to=0), "> 0.0"),
    "another method": (_set("method", to="guess"), "Invalid enum value 'guess'"),
    "other classes": (_set("classes", 0, "index", to=3), "other classes in mission.json"),
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("mission.json", wrong) for wrong in MISSION),
        *(("result.json", wrong) for wrong in RESULT),
    ],
)
def test_a_run_with_wrong_figures(name: str, wrong: str, run_folder: Path, cli: Cli) -> None:
    change, message = (MISSION if name == "mission.json" else RESULT)[wrong]
    _edit(run_folder / name, change)
    _sealed_again(run_folder)
    done = cli(*EVALUATE)
    assert_refused(done)
    assert message in done.err
    assert "distill again" in done.err.lower()
    assert name in done.err
    assert len(done.err.splitlines()) == 1


def test_a_run_that_was_changed_or_damaged(run_folder: Path, home: Path, cli: Cli) -> None:
    aside = home / "aside"
    for name in ("mission.json", "result.json", "model.pt2", "bitmaps.safetensors"):
        shutil.copytree(run_folder, aside)
        whole = (aside / name).read_bytes()
        for damaged in (whole[:-2], whole[:-2] + b"\n\n", None):
            if damaged is None:
                (aside / name).unlink()
            else:
                (aside / name).write_bytes(damaged)
            done = cli("evaluate", "aside", "--data", "photos")
            assert_refused(done)
            assert name in done.err
        shutil.rmtree(aside)
    (run_folder / "notes.txt").write_text("mine")
    (run_folder / "model.onnx").write_bytes(b"what another command wrote")
    assert cli(*EVALUATE).status == 0
    (run_folder / "manifest.json").unlink()
    done = cli(*EVALUATE)
    assert_refused(done)
    assert "manifest.json" in done.err


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"../secret": {"bytes": 1, "sha256": "0" * 64}}, "regex"),
        ({"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}, "regex"),
        ({"mission.json": {"bytes": -1, "sha256": "0" * 64}}, ">= 0"),
        ({}, "does not list mission.json"),
    ],
)
def test_a_wrong_manifest(listed: object, message: str, run_folder: Path, cli: Cli) -> None:
    (run_folder / "manifest.json").write_text(json.dumps({"format": 1, "files": listed}))
    done = cli(*EVALUATE)
    assert_refused(done)
    assert message in done.err


def test_a_damaged_front(run_folder: Path, home: Path, cli: Cli) -> None:
    take = ("distill", "--from", "run", "--max-loss", "100", "--out", "other")
    points = sorted((run_folder / "front").iterdir())
    for point in points:
        _edit(point / "result.json", _drop("search", "divergence"))
    _sealed_again(run_folder)
    done = cli(*take)
    assert_refused(done)
    assert "'divergence'" in done.err
    assert not (home / "other").exists()


def test_a_front_that_was_changed(run_folder: Path, cli: Cli) -> None:
    for point in (run_folder / "front").iterdir():
        (point / "model.pt2").write_bytes(b"something else")
    done = cli("distill", "--from", "run", "--max-loss", "100", "--out", "other")
    assert_refused(done)
    assert "model.pt2 is not the file that was written" in done.err


BITMAPS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], object], str]] = {
    "a terabyte": (lambda bits, shape: (bits, torch.tensor([2**40])), "(1099511627776,)"),
    "beyond 64 bits": (lambda bits, shape: (bits, torch.tensor([2**40] * 3)), "expected sizes"),
    "negative": (lambda bits, shape: (bits, -shape), "expected sizes of 1 or more"),
    "no shape": (lambda bits, shape: (bits, None), "no shape of the bitmap"),
    "a shape of floats": (lambda bits, shape: (bits, shape.float()), "torch.float32"),
    "too few bits": (lambda bits, shape: (bits[:-1], shape), "expected sizes"),
    "other bits": (lambda bits, shape: (bits.long(), shape), "torch.int64"),
}


@pytest.mark.parametrize("wrong", BITMAPS)
def test_wrong_bitmaps(wrong: str, run_folder: Path, cli: Cli) -> None:
    change, message = BITMAPS[wrong]
    path = run_folder / "bitmaps.safetensors"
    name = "fused/0"  # in place of what the search removed, if anything
    bitmaps = pack({name: torch.rand(6, 14, 14) > 0.5})
    bits, shape = change(bitmaps[name].clone(), bitmaps.pop(f"{name}#shape").clone())
    bitmaps[name] = bits
    if shape is not None:
        bitmaps[f"{name}#shape"] = shape
    save_file(bitmaps, path)
    _sealed_again(run_folder)
    done = cli("export", "run", "--format", "c", "--switchable", "--model", "net.py:net")
    assert_refused(done)
    assert message in done.err
    assert "distill again" in done.err.lower()


ATLAS: dict[str, tuple[Change | str, str]] = {
    "no counts": (_set("counts", to={}), "length >= 1"),
    "no number": (_set("counts", to={"cat": 1}), "regex"),
    "a class below 0": (_set("counts", to={"-1": 1}), "regex"),
    "no images": (_set("counts", "0", to=0), ">= 1"),
    "an image twice": (lambda a: a["images"].append(a["images"][0]), "listed twice"),
    "a site of no shape": (lambda a: a["sites"].update(more=[]), "length >= 1"),
    "no size": (_set("input_size", to=[16]), "length 2"),
    "a path": (lambda a: a["images"].append("/home/me/cat.png"), "regex"),
    "an older format": (_set("format", to=1), "written by an older version"),
    "unknown": (_set("more", to=1), "unknown field 'more'"),
    "deep lists": (_nested("[", "]").replace("4", "2"), "nested too deep"),
}


@pytest.fixture(scope="session")
def atlas_made_once(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    aside = tmp_path_factory.mktemp("made") / "atlas"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run_command(patch, *COLLECT)
    return Path(shutil.move(home / "atlas", aside))


@pytest.fixture
def atlas_folder(home: Path, atlas_made_once: Path, cli: Cli) -> Path:
    return shutil.copytree(atlas_made_once, home / "atlas")


WITH_ATLAS = (*DISTILL, "--atlas", "atlas", "--search", "odd")


@pytest.mark.parametrize("wrong", ATLAS)
def test_an_atlas_with_a_wrong_index(wrong: str, atlas_folder: Path, cli: Cli) -> None:
    change, message = ATLAS[wrong]
    _edit(atlas_folder / "atlas.json", change)
    _sealed_again(atlas_folder)
    done = cli(*WITH_ATLAS)
    assert_refused(done)
    assert "atlas.json" in done.err
    assert message in done.err
    assert "collect it again" in done.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda heat: torch.where(torch.arange(heat.numel()).view_as(heat) % 2 == 0, heat,
                                  torch.nan), "NaN or infinity"),
        (lambda heat: heat.half(), "torch.float16"),
        (lambda heat: heat.flatten()[1:].clone(), "torch.float32 (1175,)"),
    ],
)  # fmt: skip
def test_statistics_that_are_none(
    change: Callable[[torch.Tensor], torch.Tensor], message: str, atlas_folder: Path, cli: Cli
) -> None:
    path = atlas_folder / "0.safetensors"
    tensors = load_file(path)
    for name, values in tensors.items():
        if name.startswith("heat/"):
            tensors[name] = change(values)
    save_file(tensors, path)
    words = (*WITH_ATLAS, "--method", "paper")
    assert_refused(cli(*words))  # before anybody seals it again
    _sealed_again(atlas_folder)
    done = cli(*words)
    assert_refused(done)
    assert message in done.err
