"""Small networks, small pictures, and atlases of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import ImageSet, open_images
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.options import Options
from distillnet.missions.collecting import Pass, collect_atlas
from distillnet.missions.files import MissionAtlas
from distillnet.models import Model, load_model

__all__ = ["SIDE", "atlas_of", "model", "pictures"]

SIDE, N_CLASSES = 16, 4


def model() -> Model:
    """A network with pools, branches and a head that answers at once."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 1),
        nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(24, N_CLASSES),
    )  # fmt: skip
    how = Preprocessing((SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return load_model(net, preprocessing=how)


def pictures(folder: Path, n: int, seed: int = 0) -> Path:
    """Images of each class: noise around a colour and a direction of its own."""
    draw = np.random.default_rng(seed)
    for c in range(N_CLASSES):
        (folder / str(c)).mkdir(parents=True)
        wave = np.sin(np.arange(SIDE) * (c + 1) / 2)[:, None, None] * [60, 30 * c, -40]
        for i in range(n):
            pixels = 128 + wave + draw.normal(0, 30, (SIDE, SIDE, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / str(c) / f"{i:03}.png")
    return folder


def atlas_of(
    images: ImageSet | Path,
    directory: Path,
    *,
    how: Pass | None = None,
    network: Model | None = None,
    batch_size: int = 7,
    classes: Sequence[int] = range(N_CLASSES),
) -> MissionAtlas:
    """The atlas of some images in a folder that is made."""
    directory.mkdir()
    network = network or model()
    if isinstance(images, Path):
        images = open_images(images, network.classes).train
    graph = capture_model(network)
    done = collect_atlas(
        network,
        graph,
        analyse(graph),
        images.select([c for c in classes if c in images.counts()]),
        directory,
        directory,
        how or Pass(),
        Options(batch_size=batch_size),
    )
    assert done.atlas is not None
    return done.atlas
