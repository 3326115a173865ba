"""A network of random features, and noise of three colours that it tells apart."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from distillnet.classes import Mission, numbered_table
from distillnet.images import open_images
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.partition import Images, split_images
from distillnet.models import Model, load_model

__all__ = ["HOW", "MISSION", "colours", "network"]

HOW = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3)
MISSION = Mission((0, 2, 3), ("0", "2", "3"))


class _Net(nn.Module):
    """Random features, which still tell colours apart; scores that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3), nn.ReLU()
        )
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).mean((2, 3))


def network() -> Model:
    torch.manual_seed(0)
    return load_model(_Net(), preprocessing=HOW)


def colours(folder: Path) -> Images:
    """Their classes are 0, 2 and 3 of the network's five."""
    draw = np.random.default_rng(0)
    for channel, name in enumerate(MISSION.names):
        (folder / name).mkdir()
        for i in range(20):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return split_images(open_images(folder, numbered_table(5), MISSION))
