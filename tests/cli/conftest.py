"""A folder of networks, weights and images, good and bad, and commands that run in it."""

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from commands import run_command
from distillnet.cli import main
from invocations import DISTILL, N_CLASSES, SIDE, Cli, Outcome

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


def _pictures(folder: Path, classes: str, n: int, seed: int = 0) -> None:
    draw = np.random.default_rng(seed)
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


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, weights and images: good, damaged and hostile ones."""
    home = tmp_path_factory.mktemp("home")
    (home / "net.py").write_text(NET)
    _pictures(home / "photos" / "train", "012", 8)
    _pictures(home / "photos" / "val", "012", 4, seed=1)
    _pictures(home / "many", "012", 40)
    (home / "many" / "1" / "007.png").write_bytes(b"not a picture")
    _pictures(home / "damaged", "012", 6)
    (home / "damaged" / "2" / "003.png").write_bytes(b"")
    _pictures(home / "few", "012", 6)
    for path in sorted((home / "few" / "1").iterdir())[1:]:
        path.unlink()
    _pictures(home / "mixed", "01z", 6)
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
    (home / "three.txt").write_text("crane\njay\nmug\n")
    (home / "no_index.csv").write_text("id,name\n0,crane\n1,jay\n2,mug\n3,cup\n")
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


@pytest.fixture(scope="session")
def made_once(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run that was made in ``home`` and lies elsewhere."""
    aside = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run_command(patch, *DISTILL)
    return shutil.move(home / "run", aside)


@pytest.fixture
def run_folder(home: Path, made_once: Path, cli: Cli) -> Path:
    """A good run in ``home``, which ``cli`` removes."""
    return shutil.copytree(made_once, home / "run")
