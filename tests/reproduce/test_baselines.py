"""The paper's two naive ways: a new head learns what is there, a small network learns by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from distillnet.classes import Mission, numbered_table
from distillnet.errors import InputError
from distillnet.images import open_images
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.options import Options
from distillnet.job.partition import Images, split_images
from distillnet.models import Model, load_model
from distillnet.reproduce.baselines import (
    SMALL_RECIPE,
    original_row,
    replaced_head,
    small_network,
    small_network_alone,
    training_images,
)

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


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return load_model(_Net(), preprocessing=HOW)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Noise of three colours, whose classes are 0, 2 and 3 of the network's five."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for channel, name in enumerate(MISSION.names):
        (folder / name).mkdir()
        for i in range(20):
            pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return split_images(open_images(folder, numbered_table(5), MISSION))


def test_a_new_head_learns_and_leaves_the_rest(model: Model, images: Images) -> None:
    before = {name: p.clone() for name, p in model.module.state_dict().items()}
    row = replaced_head(model, MISSION, images, Options(), epochs=60)
    assert row.accuracy > 0.9  # chance is 1 in 3
    assert all(torch.equal(p, before[name]) for name, p in model.module.state_dict().items())
    whole = original_row(model, MISSION, images, Options())
    # Five scores become three, at 4 x 4 places of 16 channels each: nothing else is saved.
    assert whole.macs - row.macs == 2 * 16 * 25
    assert whole.params - row.params == 2 * (16 + 1)
    assert row.seconds > 0
    again = replaced_head(model, MISSION, images, Options(), epochs=60)
    assert again.accuracy == row.accuracy


def test_a_head_without_training_knows_nothing(model: Model, images: Images) -> None:
    untrained = replaced_head(model, MISSION, images, Options(), epochs=0)
    assert untrained.accuracy < 0.9


def test_a_small_network_learns_by_itself(model: Model, images: Images) -> None:
    recipe = replace(SMALL_RECIPE, epochs=8)
    row = small_network_alone(model, MISSION, images, Options(), recipe=recipe)
    assert row.accuracy > 0.9
    assert row.params == sum(p.numel() for p in small_network(3).parameters()) - 240
    # Batch norm is folded into the convolutions, whose biases are half of its parameters.
    maps = (64**2 * 3 * 16, 32**2 * 16 * 32, 16**2 * 32 * 64, 8**2 * 64 * 128)
    assert row.macs == 9 * sum(maps) + 128 * 3


def test_no_image_is_trained_on_and_judged_by(images: Images) -> None:
    seen = set(training_images(images).refs)
    assert seen == {*images.statistics.refs, *images.search.refs}
    assert not seen & set(images.val.refs)


def test_scores_of_several_layers_have_no_head(images: Images, tmp_path: Path) -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a(x) + self.b(x)).mean((2, 3))

    with pytest.raises(InputError, match="'a', 'b' make the scores"):
        replaced_head(load_model(TwoHeads(), preprocessing=HOW), MISSION, images, Options())
