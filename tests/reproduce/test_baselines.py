"""The paper's two naive ways: a new head learns what is there, a small network learns by itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from colours import HOW, MISSION
from distillnet.errors import InputError
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.options import Options
from distillnet.job.partition import Images
from distillnet.models import Model, load_model
from distillnet.reproduce.baselines import (
    SMALL_RECIPE,
    original_row,
    replaced_head,
    small_network,
    small_network_alone,
    training_images,
)

GREY = Preprocessing((16, 16), (0.5,), (0.5,), channels="L")


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


def test_a_small_network_takes_the_colours_of_the_original(images: Images) -> None:
    grey = load_model(nn.Sequential(nn.Conv2d(1, 5, 16), nn.Flatten()), preprocessing=GREY)
    recipe = replace(SMALL_RECIPE, epochs=1)
    row = small_network_alone(grey, MISSION, images, Options(), recipe=recipe)
    assert row.params == sum(p.numel() for p in small_network(3).parameters()) - 240 - 2 * 9 * 16


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
