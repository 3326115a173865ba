"""A run whose classes have names that a page must not obey, and a browser to look at pages."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import run_command

SIDE = 24
HOSTILE = "<script>alert(1)</script>"
NAMES = ("ant", HOSTILE, 'cat\'s "own" & more', "dog")
NET = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.side = nn.Conv2d(32, 16, 1)
        self.c = nn.Linear(80, {len(NAMES)})

    def forward(self, x):
        x = nn.functional.max_pool2d(self.a(x).relu(), 2)
        both = torch.cat([self.b(x).relu(), self.side(x).relu()], 1)
        return self.c(both.mean((2, 3)))
"""


def _images(folder: Path, n: int, seed: int, names: Sequence[str] = ("0", "1", "2")) -> None:
    draw = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise = draw.integers(-60, 60, (SIDE, SIDE, 3))
            pixels = (draw.integers(0, 256, 3) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"secret-{i:02}.png")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, images and a run of it."""
    home = tmp_path_factory.mktemp("pages")
    (home / "net.py").write_text(NET)
    rows = "".join(f"{i}\t{name}\n" for i, name in enumerate(NAMES))
    (home / "names.tsv").write_text(f"index\tname\n{rows}")
    _images(home / "data" / "train", 16, 0)
    _images(home / "data" / "val", 8, 1)
    _images(home / "others", 12, 2, ("empty scene", "people"))
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "distill", f"{home / 'net.py'}:Net", "--data", str(home / "data"), "--out",
            str(home / "run"), "--classes", "0,1,2", "--class-names", str(home / "names.tsv"),
            "--input-size", str(SIDE), "--mean", "0.5,0.4,0.3", "--std", "0.25,0.25,0.25",
            "--target-macs", "2", "--optimise", "macs", "--no-labels",
        )  # fmt: skip
    return home


@pytest.fixture
def run_folder(home: Path, tmp_path: Path) -> Path:
    """A copy of the run, beside which its images and its network lie as they did."""
    for name in ("data", "net.py"):
        (tmp_path / name).symlink_to(home / name)
    return Path(shutil.copytree(home / "run", tmp_path / "run"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of this system; where there is none a skip."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=found, args=arguments)
        yield opened
        opened.close()
