"""The command line under wrong input, full disks and Ctrl-C: one message, the right status."""

import contextlib
import errno
import importlib
import json
import os
import pickle
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from safetensors.torch import save_file

import distillnet.files
from distillnet.cli import app, main
from distillnet.cli.output import print_table, warn_unreadable

cli_distill = importlib.import_module("distillnet.cli.distilling")

SIDE = 16
N_CLASSES = 4
OPTIONS = ("--input-size", str(SIDE), "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")

NET = f'''
import torch
from torch import nn
from torchvision.models import VisionTransformer

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 5 * 5, {N_CLASSES}),
    )

class Talkative(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        print("forward says hello")
        return self.net(x)

def talkative():
    print("the file says hello")
    return Talkative()

class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(x) if x.sum() > 0 else self.net(-x)

undecided = Undecided

class NotANumber(nn.Module):
    """Finite on black images, which load_model tries, and nowhere else."""
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(torch.sqrt(-0.4 - x))

not_a_number = NotANumber

def transformer():
    return VisionTransformer({SIDE}, 8, 1, 2, 16, 16, num_classes={N_CLASSES})

def fails():
    raise OSError("no camera")
'''


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def _pictures(folder: Path, classes: str, n: int) -> None:
    draw = np.random.default_rng(0)
    for c in classes:
        (folder / c).mkdir(parents=True)
        for i in range(n):
            pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / c / f"{i:03}.png")


class _Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.victim),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, weights and images: good, damaged and hostile ones."""
    home = tmp_path_factory.mktemp("home")
    (home / "net.py").write_text(NET)
    _pictures(home / "photos" / "train", "012", 8)
    _pictures(home / "photos" / "val", "012", 4)
    _pictures(home / "many", "012", 40)
    (home / "many" / "1" / "007.png").write_bytes(b"not a picture")
    _pictures(home / "damaged", "012", 6)
    (home / "damaged" / "2" / "003.png").write_bytes(b"")
    _pictures(home / "few", "012", 6)
    for path in sorted((home / "few" / "1").iterdir())[1:]:
        path.unlink()
    (home / "void").mkdir()
    odd = home / "odd" / "train"
    _pictures(odd, "012", 6)
    for c in "012":
        Image.new("L", (20, 9), 77).save(odd / c / "grey.png")
        Image.new("CMYK", (9, 20), (9, 99, 20, 0)).save(odd / c / "cmyk.jpg")
        Image.fromarray(np.full((12, 12), 40000, np.uint16)).save(odd / c / "sixteen.png")
        (odd / c / "deeper").mkdir()
        Image.new("RGBA", (20, 20), (1, 2, 3, 90)).save(odd / c / "deeper" / "glass.PNG")
    save_file({"layer.weight": torch.zeros(3, 3)}, home / "other.safetensors")
    (home / "cut.safetensors").write_bytes((home / "other.safetensors").read_bytes()[:-7])
    hostile = pickle.dumps(_Hostile(home / "executed"), protocol=2)
    for name in ("hostile.pt", "hostile.pt2", "hostile.safetensors"):
        (home / name).write_bytes(hostile)
    with zipfile.ZipFile(home / "hostile_zip.pt2", "w") as archive:
        for name in ("models/model.json", "data.pkl", "data/weights/model.pt"):
            archive.writestr(f"net/{name}", hostile)
    rows = [
        "index\tname\talias",
        "0\tcrane\tbird",
        "1\tjay\tbird",
        "2\tmug\tcup",
        "3\t[red]\t:cat:",
    ]
    (home / "names.tsv").write_text("\n".join(rows))
    (home / "notes").mkdir()
    (home / "notes" / "result.json").write_text("{}")
    return home


@pytest.fixture
def cli(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Runs a command in ``home``, and afterwards removes what it wrote there."""
    monkeypatch.chdir(home)
    before = {path.name for path in home.iterdir()}

    def run(*args: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["distillnet", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run
    for path in home.iterdir():
        if path.name not in before:
            subprocess.run(["rm", "-r", str(path)], check=True)


@pytest.fixture
def run_folder(home: Path, cli: Cli) -> Path:
    """A good run in ``home``."""
    done = cli(*DISTILL)
    assert done.status == 0, done.err
    return home / "run"


def _distill(model: str = "net", data: str = "photos", classes: str = "0,1,2") -> tuple[str, ...]:
    spec = f"net.py:{model}"
    return ("distill", spec, *OPTIONS, "--data", data, "--classes", classes, "--out", "run")


DISTILL = _distill()
COLLECT = ("collect", "net.py:net", *OPTIONS, "--data", "photos", "--out", "atlas")


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def _assert_refused(done: Outcome, status: int = 2) -> None:
    assert done.status == status, done.err
    assert done.out == ""
    assert "Traceback" not in done.err


# --- wrong options


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--bogus",), "--bogus"),
        (("prune",), "prune"),
        (("distill",), "MODEL"),
        (("distill", "net.py:net", "--data", "photos", "--out", "run"), "--classes"),
        ((*DISTILL, "--max-loss", "much"), "--max-loss"),
        ((*DISTILL, "--method", "magic"), "--method"),
        ((*DISTILL, "--batch-size", "0"), "--batch-size"),
        ((*DISTILL, "--workers", "-1"), "--workers"),
        ((*DISTILL, "--seed", "-1"), "--seed"),
        ((*DISTILL, "--device", "tpu"), "--device"),
        ((*DISTILL, "--colour", "red"), "--colour"),
        (("demo", "surplus"), "surplus"),
        (("train", "zoo:tf_mnist", "--data", "photos", "--out", "w", "--epochs", "0"), "--epochs"),
    ],
)
def test_wrong_options(args: tuple[str, ...], message: str, cli: Cli, home: Path) -> None:
    before = _tree(home)
    done = cli(*args)
    _assert_refused(done)
    assert message in done.err
    assert len(re.findall("^Error: ", done.err, re.M)) == 1
    assert _tree(home) == before


def test_the_version_and_the_list_of_commands_are_whole(cli: Cli) -> None:
    done = cli("--version")
    assert (done.status, done.out) == (0, f"distillnet {version('distillnet')}\n")
    assert "..." not in cli("--help").out.replace("[ARGS]...", "")


def test_every_command_and_option_has_help_with_its_default(cli: Cli) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"demo", "train", "inspect", "collect", "distill", "evaluate"} <= set(commands)
    for name, command in commands.items():
        assert command.help, name
        done = cli(name, "--help")
        assert (done.status, done.err) == (0, "")
        # An option begins in the second column; what follows deeper belongs to it.
        text = re.sub(r"\n {4,}", " ", done.out)
        lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  --")}
        lines.pop("--help")
        assert lines
        for option, line in lines.items():
            assert "[default:" in line or "[required]" in line, f"{name} {option}: {line}"


# --- wrong input


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (_distill(classes="0,zebra"), ("'zebra'", "4 classes", "index from 0 to 3")),
        (_distill(classes="0,9"), ("'9'", "0 to 3")),
        (_distill(classes="0"), ("1 class", "at least 2")),
        (_distill(classes=""), ("0 classes", "at least 2")),
        (_distill(classes="0,1,0"), ("twice",)),
        (_distill(classes="0,3"), ("no images of class 3", "found 0, 1, 2")),
        ((*_distill(classes="jay,bird"), "--class-names", "names.tsv"), ("0 crane", "1 jay")),
        ((*DISTILL, "--class-names", "absent.tsv"), ("absent.tsv",)),
        (_distill(data="void"), ("no images of class 0", "no folders")),
        (_distill(data="absent"), ("absent does not exist", "expected a folder")),
        (_distill(data="net.py"), ("net.py is not a folder",)),
        (_distill(data="damaged"), ("damaged/2/003.png", "empty", "1 %")),
        (_distill(data="few"), ("class 1 has 1 images", "Add images")),
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
        (_distill("undecided"), ("control flow",)),
        (_distill("transformer"), ("class token",)),
        (_distill("not_a_number"), ("finite",)),
        ((*DISTILL, "--max-loss", "-1"), ("--max-loss",)),
        ((*DISTILL, "--max-loss", "nan"), ("--max-loss",)),
        ((*DISTILL, "--target-macs", "0.5"), ("--target-macs",)),
        ((*DISTILL, "--target-macs", "2", "--target-params", "2"), ("one of them",)),
        ((*DISTILL, "--atlas", "void"), ("void is not an atlas",)),
        ((*DISTILL, "--out", "net.py"), ("net.py is a file",)),
        ((*DISTILL, "--out", "net.py/run"), ("cannot write",)),
        ((*DISTILL, "--out", "notes"), ("notes holds other files",)),
        ((*DISTILL, "--out", "photos"), ("photos holds other files",)),
        ((*DISTILL, "--out", "/proc"), ("/proc",)),
        ((*COLLECT, "--out", "notes"), ("notes holds other files",)),
        (("demo", "--out", "notes"), ("notes holds other files",)),
        (("evaluate", "void", "--data", "photos"), ("void is not a run folder",)),
        (("evaluate", "absent", "--data", "photos"), ("absent is not a run folder",)),
        (("train", "zoo:alexnet", "--data", "photos", "--out", "w"), ("zoo:tf_mnist",)),
        (("train", "zoo:tf_mnist", "--data", "few", "--out", "w"), ("no test images",)),
        (("train", "zoo:tf_mnist", "--data", "photos", "--out", "photos"), ("is a folder",)),
    ],
)
def test_wrong_input(
    args: tuple[str, ...], messages: tuple[str, ...], cli: Cli, home: Path
) -> None:
    before = _tree(home)
    done = cli(*args)
    _assert_refused(done)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for message in messages:
        assert message in errors[0]
    assert _tree(home) == before  # nothing left, and no hostile file has been executed


def test_a_device_that_is_not_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = cli(*DISTILL, "--device", "cuda")
    _assert_refused(done)
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
        done = cli(*evaluate, "--batch-size", "4")
        _assert_refused(done)
        assert message in done.err
    assert not (home / "executed").exists()
    (run_folder / "mission.json").write_text('{"format": 1, "n_classes": [')
    done = cli(*evaluate)
    _assert_refused(done)
    assert "run is not a run folder" in done.err


def test_an_atlas_of_another_network(home: Path, cli: Cli) -> None:
    assert cli(*COLLECT).status == 0
    done = cli(*DISTILL, "--atlas", "atlas")  # which knows all images that a search could use
    _assert_refused(done)
    assert "--search" in done.err
    shutil.copytree(home / "photos", home / "others")
    both = ("--atlas", "atlas", "--search", "others")
    assert cli(*DISTILL, *both).status == 0
    done = cli(*DISTILL, *both, "--input-size", "16", "--std", "0.3,0.3,0.3")
    assert done.status == 0  # the same network; its preprocessing is the user's affair
    done = cli(*_distill("talkative"), *both)
    _assert_refused(done)
    assert "atlas is of other" in done.err


def test_too_little_memory_and_mistakes_of_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, message in (
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "--batch-size"),
        (ZeroDivisionError("division by zero\nmore"), "unexpected ZeroDivisionError: division by"),
    ):

        def fail(*args: object, error: Exception = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(cli_distill, "distill", fail)
        done = cli(*DISTILL)
        _assert_refused(done, 1)
        assert message in done.err
        assert len(done.err.splitlines()) == 1
    monkeypatch.setenv("DISTILLNET_TRACEBACK", "1")
    done = cli(*DISTILL)
    assert done.status == 1
    assert "Traceback" in done.err


# --- images


def test_unusual_images_work(cli: Cli) -> None:
    done = cli(*_distill(data="odd"), "--val", "photos/val", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["n_images"]["statistics"] + result["n_images"]["search"] == 3 * 10
    assert result["n_images"]["unreadable"] == 0


def test_val_of_a_folder_that_holds_train_and_val_is_its_val(cli: Cli) -> None:
    done = cli(*_distill(data="odd"), "--val", "photos", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["n_images"]["val"] == 3 * 4


def test_unreadable_images_are_named_and_counted(cli: Cli) -> None:
    for args in (
        ("collect", "net.py:net", *OPTIONS, "--data", "many", "--out", "atlas", "--json"),
        (*DISTILL, "--val", "many", "--json"),
    ):
        done = cli(*args)
        assert done.status == 0, done.err
        result = json.loads(done.out)
        assert result.get("n_images", result)["unreadable"] == 1
        assert "1 image could not be read" in done.err
        assert done.err.count("many/1/007.png: not an image") == 1
    done = cli("evaluate", "run", "--data", "many", "--json")
    assert json.loads(done.out)["n"] == 119
    assert "many/1/007.png" in done.err


def test_few_of_many_unreadable_images_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    warn_unreadable([f"{i}.png: cut" for i in range(13)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("13 images")
    assert lines[1:] == [*(f"  {i}.png: cut" for i in range(10)), "  and 3 more"]


# --- what cannot be written


@contextlib.contextmanager
def _small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes: like a full disk, but for EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What is written first is larger than the first limit, and so on: statistics, then the programme.
@pytest.mark.parametrize("limit", [100, 9000])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_file_that_cannot_grow(limit: int, earlier: bool, cli: Cli, home: Path) -> None:
    if earlier:
        assert cli(*DISTILL).status == 0
    before = _tree(home)
    with _small_files(limit):
        done = cli(*DISTILL)
    _assert_refused(done, 1)
    assert os.strerror(errno.EFBIG) in done.err
    assert _tree(home) == before


@pytest.mark.parametrize("name", ["write_bytes", "write_text", "save_file"])
def test_a_full_disk(
    name: str, run_folder: Path, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _tree(home)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(distillnet.files if name == "save_file" else Path, name, full)
    done = cli(*DISTILL)
    _assert_refused(done, 1)
    assert "No space left on device" in done.err
    assert "free some space" in done.err
    assert _tree(home) == before


def test_folders_made_for_a_run_that_fails_go_again(cli: Cli, home: Path) -> None:
    before = _tree(home)
    done = cli(*_distill(data="damaged"), "--out", "deep/deeper/run")
    _assert_refused(done)
    assert _tree(home) == before
    assert cli(*DISTILL, "--out", "deep/deeper/run").status == 0
    assert (home / "deep" / "deeper" / "run" / "result.json").exists()


def test_a_link_to_a_folder_stays(cli: Cli, home: Path) -> None:
    (home / "link").symlink_to(home / "elsewhere")
    for _ in range(2):
        assert cli(*DISTILL, "--out", "link").status == 0
    assert (home / "link").is_symlink()
    assert (home / "elsewhere" / "result.json").exists()


# --- Ctrl-C


def _interrupted_at(wanted: str) -> Callable[[], contextlib.AbstractContextManager[object]]:
    @contextlib.contextmanager
    def progress() -> Iterator[object]:
        def update(stage: str, done: int, of: int) -> None:
            if stage == wanted:
                raise KeyboardInterrupt

        yield update

    return progress


@pytest.mark.parametrize("stage", ["collect", "read", "search", "evaluate"])
@pytest.mark.parametrize("earlier", [False, True])
def test_ctrl_c_in_each_stage(
    stage: str, earlier: bool, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        assert cli(*DISTILL).status == 0
    before = _tree(home)
    monkeypatch.setattr(cli_distill, "progress", _interrupted_at(stage))
    done = cli(*DISTILL)
    _assert_refused(done, 130)
    assert done.err.strip() == "interrupted"
    assert _tree(home) == before


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [
        ("distilling", "write_run", DISTILL),
        ("training", "save_weights", ("train", "zoo:tf_mnist", "--data", "photos", "--out", "w")),
        ("collecting", "measure_statistics", COLLECT),
        ("evaluating", "evaluate_run", ("evaluate", "run", "--data", "photos")),
        ("main", "run_demo", ("demo", "--out", "run")),
    ],
)
def test_ctrl_c_in_each_command(
    module: str,
    name: str,
    args: tuple[str, ...],
    run_folder: Path,
    cli: Cli,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        for path in args:
            if isinstance(path, Path) and path.is_dir():
                (path / "half").write_text("")
        raise KeyboardInterrupt

    before = _tree(home)
    monkeypatch.setattr(importlib.import_module(f"distillnet.cli.{module}"), name, interrupted)
    done = cli(*args, *(("--epochs", "1") if args[0] == "train" else ()))
    _assert_refused(done, 130)
    assert done.err.splitlines()[-1] == "interrupted"
    assert _tree(home) == before


def test_a_signal_from_outside(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "distillnet", "demo", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Its temporary folder shows that it trains.
        while process.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


# --- what is printed

NETWORK_KEYS = {"input_size", "params", "macs", "accuracy", "accuracy_open", "per_class"}
RESULT_KEYS = {
    *("model", "method", "classes", "baseline", "distilled", "mac_ratio", "param_ratio"),
    *("mac_ratio_with_partial", "inception_mac_ratio", "loss_pp", "worst_class_loss_pp"),
    *("loss_ci95_pp", "n_images", "seconds", "peak_rss_mb"),
}


def test_json_is_all_there_is_on_standard_output(cli: Cli, home: Path) -> None:
    for args, keys in (
        (_distill("talkative"), RESULT_KEYS),
        (("evaluate", "run", "--data", "photos"), {"accuracy", "accuracy_open", "per_class", "n"}),
        (("inspect", "net.py:talkative", *OPTIONS), {"layers", "params", "macs"}),
        (("collect", "net.py:talkative", *COLLECT[2:]), {"counts", "unreadable"}),
        (
            ("train", "zoo:tf_mnist", "--data", "photos", "--out", "w", "--epochs", "1"),
            {"accuracy", "unreadable"},
        ),
    ):
        done = cli(*args, "--json")
        assert done.status == 0, done.err
        assert keys <= set(json.loads(done.out))
        assert ("the file says hello" in done.err) == ("talkative" in " ".join(args))
    result = json.loads((home / "run" / "result.json").read_text())
    assert set(result["baseline"]) >= NETWORK_KEYS <= set(result["distilled"])
    assert set(result["n_images"]) == {"statistics", "search", "val", "unreadable"}
    assert set(result["seconds"]) == {"collect", "search", "total"}
    assert result["classes"][2] == {"index": 2, "name": "2"}


def test_json_of_a_process_and_bars_on_a_terminal(home: Path, cli: Cli) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "distillnet", *_distill("talkative"), "--json"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert set(json.loads(out)) >= RESULT_KEYS
    assert "hello" in text
    for label in ("Collecting statistics", "images/s", "Searching", "steps/s", "Evaluating", "━"):
        assert label in text
    assert re.search(r"\d:\d\d:\d\d", text)  # time left


def test_lines_where_there_is_no_terminal(cli: Cli) -> None:
    done = cli(*DISTILL)
    assert re.search(r"^Collecting statistics: 12/12, [\d.]+ images/s$", done.err, re.M)
    assert re.search(r"^Evaluating: (\d+)/\1, ", done.err, re.M)
    assert "\x1b" not in done.err + done.out
    assert "Written to run" in done.out


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a [red] title", ["x", "[b]"], [["[/red]", ":cat:"]])
    out = capsys.readouterr().out
    for text in ("a [red] title", "[b]", "[/red]", ":cat:"):
        assert text in out


def test_a_reader_that_leaves_early(home: Path) -> None:
    command = f"{sys.executable} -m distillnet inspect net.py:net {' '.join(OPTIONS)} | true"
    done = subprocess.run(
        command, shell=True, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
