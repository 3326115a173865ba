"""What the tests of a run of an untrained network share."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distillnet.cli import main
from distillnet.images.preprocessing import Preprocessing, preprocess

__all__ = ["CLASSES", "NET", "SIDE", "images", "net_of", "refused"]

SIDE, CLASSES = 32, ("ant", "bee", "cat", "dog")
NET = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(48, 96, 3, padding=1)
        self.norm = nn.LocalResponseNorm(5)
        self.c = nn.Linear(96, {len(CLASSES)})

    def forward(self, x):
        x = self.norm(self.a(x).relu())
        return self.c(self.b(nn.functional.max_pool2d(x, 2)).relu().mean((2, 3)))
"""


def images(n: int, how: Preprocessing) -> tuple[Tensor, np.ndarray]:
    """Random pictures, normalised (N, C, H, W), and as they come, (N, H, W, 3)."""
    generator = np.random.default_rng(1)
    shape = (n, *how.input_size, 3)
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    return torch.stack([preprocess(Image.fromarray(p), how) for p in pixels]), pixels


def net_of(run: Path) -> str:
    """The original of a run in its fixture, as the user names it."""
    return f"{run.parent / 'net.py'}:Net"


def refused(monkeypatch, *args: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["distillnet", *args])
    with pytest.raises(SystemExit) as leaving:
        main()
    return leaving.value.code
