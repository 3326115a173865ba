"""Whatever is wrong with options or input, one message says so, and nothing is left behind."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from distillnet.job.runs import seal_run
from invocations import COLLECT, DISTILL, OPTIONS, SIDE, Cli, assert_refused, distill_words, tree

EVERYTHING = ("distill", "net.py:net", *OPTIONS, "--out", "run", "--class-names", "names.tsv")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--bogus",), "--bogus"),
        (("prune",), "prune"),
        (("distill",), "MODEL"),
        (("distill", "net.py:net", "--classes", "0,1", "--out", "run"), "--data"),
        ((*DISTILL, "--max-loss", "much"), "--max-loss"),
        ((*DISTILL, "--method", "magic"), "--method"),
        ((*DISTILL, "--batch-size", "0"), "--batch-size"),
        ((*DISTILL, "--workers", "-1"), "--workers"),
        ((*DISTILL, "--seed", "-1"), "--seed"),
        ((*DISTILL, "--device", "tpu"), "--device"),
        ((*DISTILL, "--colour", "red"), "--colour"),
        (("demo", "surplus"), "surplus"),
        (("timings", "--kit", "kit", "--out", "t.json"), "found --out with --kit"),
        (("inspect", "--atlas", "a", *OPTIONS), "found --input-size, --mean, --std with --atlas"),
        (("distill", "--from", "a", "--out", "b", "--tune"), "found --tune with --from"),
        (("train", "zoo:tf_mnist", "--data", "photos", "--out", "w", "--epochs", "0"), "--epochs"),
    ],
)
def test_wrong_options(args: tuple[str, ...], message: str, cli: Cli, home: Path) -> None:
    before = tree(home)
    done = cli(*args)
    assert_refused(done)
    assert message in done.err
    assert len(re.findall("^Error: ", done.err, re.M)) == 1
    assert tree(home) == before


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (distill_words(classes="0,zebra"), ("'zebra'", "4 classes", "index from 0 to 3")),
        (distill_words(classes="0,9"), ("'9'", "0 to 3")),
        (distill_words(classes="0"), ("1 class", "at least 2")),
        (distill_words(classes=""), ("0 classes", "at least 2")),
        (distill_words(classes="0,1,0"), ("twice",)),
        (distill_words(classes="0,3"), ("no images of class 3", "found 0, 1, 2")),
        ((*distill_words(classes="jay,bird"), "--class-names", "names.tsv"), ("0 crane", "1 jay")),
        ((*DISTILL, "--class-names", "absent.tsv"), ("absent.tsv",)),
        (distill_words(data="void"), ("no images of 3 of 3 classes", "no folders")),
        (distill_words(data="absent"), ("absent does not exist", "expected a folder")),
        (distill_words(data="net.py"), ("net.py is not a folder",)),
        (
            (*distill_words(data="many"), "--max-unreadable", "0"),
            ("many/1/007.png", "not an image", "at most 0 %", "--max-unreadable"),
        ),
        (distill_words(data="damaged"), ("no val image of class 2", "damaged/2/003.png")),
        ((*DISTILL, "--mean", "124,116,104"), ("--mean 124", "0 to 1", "which gives 0.4863")),
        ((*DISTILL, "--mean=-0.5,0,0"), ("--mean -0.5", "0 to 1")),
        ((*DISTILL, "--std", "58,57,57"), ("--std 58", "0.001 to 1", "which gives 0.2275")),
        ((*DISTILL, "--std", "0.0001,1,1"), ("--std 0.0001", "0.001 to 1")),
        (distill_words(data="few"), ("class 1 has 1 images", "Add images")),
        ((*DISTILL, "--val", "photos/train"), ("both the", "photos/train/0/")),
        ((*DISTILL, "--search", "void"), ("void holds no images",)),
        ((*DISTILL, "--weights", "other.safetensors"), ("does not fit the network", "missing")),
        ((*DISTILL, "--weights", "cut.safetensors"), ("Cannot read weights", "download it again")),
        ((*DISTILL, "--weights", "hostile.pt"), ("Cannot read weights from hostile.pt",)),
        ((*DISTILL, "--weights", "hostile.safetensors"), ("Cannot read weights",)),
        ((*DISTILL, "--weights", "absent.pt"), ("absent.pt does not exist",)),
        ((*DISTILL, "--weights", "photos"), ("photos",)),
        (("inspect", "hostile.pt2"), ("hostile.pt2 cannot be read",)),
        (("inspect", "hostile_zip.pt2"), ("hostile_zip.pt2",)),
        (("inspect", "resnet18"), ("resnet18", "torchvision:resnet18")),
        (("inspect", "net.py:fails", *OPTIONS), ("net.py:fails raised OSError: no camera",)),
        (("inspect", "net.py:absent", *OPTIONS), ("net.py:absent",)),
        (("inspect", "net.py:net"), ("--input-size, --mean", "--std")),
        (("inspect", "net.py:net", *OPTIONS, "--mean", "grey"), ("--mean 'grey'",)),
        (distill_words("undecided"), ("control flow",)),
        (distill_words("transformer"), ("class token",)),
        (distill_words("not_a_number"), ("finite",)),
        ((*DISTILL, "--max-loss", "-1"), ("--max-loss",)),
        ((*DISTILL, "--max-loss", "nan"), ("--max-loss",)),
        ((*DISTILL, "--target-macs", "0.5"), ("--target-macs",)),
        ((*DISTILL, "--target-macs", "2", "--target-params", "2"), ("one of them",)),
        ((*DISTILL, "--atlas", "void"), ("void is not an atlas",)),
        ((*DISTILL, "--out", "net.py"), ("net.py is a file",)),
        ((*DISTILL, "--out", "net.py/run"), ("cannot write",)),
        ((*DISTILL, "--out", "notes"), ("notes holds other files",)),
        ((*DISTILL, "--out", "photos"), ("photos holds other files",)),
        ((*DISTILL, "--out", "photos/run"), ("lies inside the folder of images photos",)),
        ((*DISTILL, "--val", "few", "--out", "few/run"), ("lies inside the folder of images few",)),
        ((*DISTILL, "--atlas", "net.py"), ("--atlas: net.py is not a folder",)),
        ((*DISTILL, "--class-names", "photos"), ("photos", "it is a folder")),
        ((*DISTILL, "--class-names", "three.txt"), ("names 3 classes", "4 outputs")),
        ((*DISTILL, "--class-names", "no_index.csv"), ("'id', 'name'", "a column 'index'")),
        ((*EVERYTHING, "--data", "mixed"), ("the mission is every folder in mixed", "'z'")),
        (distill_words(classes="@photos"), ("cannot read the classes in photos", "folder")),
        (distill_words(classes="tom=0,TOM=1"), ("'TOM'", "class 0")),
        ((*DISTILL, "--out", "/proc"), ("/proc",)),
        ((*COLLECT, "--out", "notes"), ("notes holds other files",)),
        (("demo", "--out", "notes"), ("notes holds other files",)),
        (("evaluate", "void", "--data", "photos"), ("void is not a run folder",)),
        (("evaluate", "absent", "--data", "photos"), ("absent is not a run folder",)),
        (
            ("reproduce", "baselines", "net.py:net", "--data", "photos", "--method", "paper"),
            ("--method paper, with which nothing is tuned", "--only"),
        ),
        (("train", "zoo:alexnet", "--data", "photos", "--out", "w"), ("zoo:tf_mnist",)),
        (("train", "zoo:tf_mnist", "--data", "few", "--out", "w"), ("no test images",)),
        (("train", "zoo:tf_mnist", "--data", "photos", "--out", "photos"), ("is a folder",)),
    ],
)
def test_wrong_input(
    args: tuple[str, ...], messages: tuple[str, ...], cli: Cli, home: Path
) -> None:
    before = tree(home)
    done = cli(*args)
    assert_refused(done)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for message in messages:
        assert message in errors[0]
    assert tree(home) == before  # nothing left, and no hostile file has been executed


def test_a_device_that_is_not_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = cli(*DISTILL, "--device", "cuda")
    assert_refused(done)
    assert "no CUDA device" in done.err


def test_a_run_with_another_programme_in_it(run_folder: Path, home: Path, cli: Cli) -> None:
    evaluate = ("evaluate", "run", "--data", "photos")
    assert cli(*evaluate).status == 0
    programme = torch.export.export(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, 7)),
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    torch.export.save(programme, home / "seven.pt2")
    for replacement, message in (
        ("hostile.pt2", "cannot be read"),
        ("hostile_zip.pt2", "model.pt2"),
        ("seven.pt2", "(4, 7)"),
    ):
        (run_folder / "model.pt2").write_bytes((home / replacement).read_bytes())
        seal_run(run_folder)
        done = cli(*evaluate, "--batch-size", "4")
        assert_refused(done)
        assert message in done.err
    assert not (home / "executed").exists()
    (run_folder / "mission.json").write_text('{"format": 1, "n_classes": [')
    done = cli(*evaluate)
    assert_refused(done)
    assert "run/mission.json does not hold" in done.err


@pytest.mark.slow
def test_an_atlas_of_another_network(home: Path, cli: Cli) -> None:
    assert cli(*COLLECT).status == 0
    done = cli(*DISTILL, "--atlas", "atlas")  # which knows all images that a search could use
    assert_refused(done)
    assert "--search" in done.err
    shutil.copytree(home / "photos", home / "others")
    both = ("--atlas", "atlas", "--search", "others")
    assert cli(*DISTILL, *both).status == 0
    done = cli(*DISTILL, *both, "--input-size", "16", "--std", "0.3,0.3,0.3")
    assert done.status == 0  # the same network; its preprocessing is the user's affair
    done = cli(*distill_words("talkative"), *both)
    assert_refused(done)
    assert "atlas differs from" in done.err


def test_too_little_memory_and_mistakes_of_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in (
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "--batch-size"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "not enough memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "not enough memory"),
        (ZeroDivisionError("division by zero\nmore"), "unexpected ZeroDivisionError: division by"),
    ):

        def fail(*args: object, error: Exception = error, **options: object) -> None:
            raise error

        monkeypatch.setattr("distillnet.job.distill.distill", fail)
        done = cli(*DISTILL)
        assert_refused(done, 1)
        assert message in done.err
        assert len(done.err.splitlines()) == 1
    monkeypatch.setenv("DISTILLNET_TRACEBACK", "1")
    done = cli(*DISTILL)
    assert done.status == 1
    assert "Traceback" in done.err
