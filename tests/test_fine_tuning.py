"""The lines of docs/fine-tuning.md run as they stand, without this package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import distillnet as dn
from distillnet.graph.capture import capture
from distillnet.models.programs import load_program

PAGE = Path(__file__).parents[1] / "docs" / "fine-tuning.md"
SIDE = 16


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A run's network with a shuffle and a local response norm, and photos of its classes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ChannelShuffle(2), nn.LocalResponseNorm(3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    how = {"input_size": [SIDE, SIDE], "mean": [0.5] * 3, "std": [0.5] * 3, "resize": None}
    about = {"classes": ["bee", "ant"], "preprocessing": how}
    dn.save_program(capture(net, (SIDE, SIDE)), tmp_path / "run" / "model.pt2", about)
    draw = np.random.default_rng(0)
    for name in about["classes"]:
        (folder := tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path


@pytest.mark.slow
def test_the_page_runs_without_this_package(home: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    assert len(blocks[2].splitlines()) <= 16
    alone = "import sys; sys.modules['distillnet'] = None\n"
    script = [sys.executable, "-c", alone + "".join(blocks)]
    done = subprocess.run(script, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['bee', 'ant'] [16, 16]")
    before, after = (load_program(home / name).module for name in ("run/model.pt2", "trained.pt2"))
    changed = [not torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(),
                                                     strict=True)]  # fmt: skip
    assert all(changed)
    extra = {"distillnet.json": ""}
    torch.export.load(home / "trained.pt2", extra_files=extra)
    assert json.loads(extra["distillnet.json"])["classes"] == ["bee", "ant"]
