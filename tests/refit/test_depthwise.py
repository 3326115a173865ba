"""Filters of depthwise convolutions: fitted as layers of one channel are, and to smaller images."""

import math

import pytest
import torch
from torch import Tensor, nn

from cases import random
from distillnet.cut.plan import Plan
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit import compensation
from distillnet.refit.compensation import compensate
from distillnet.refit.depthwise import fit_each
from distillnet.refit.regression import fit_affine
from distillnet.refit.samples import outputs_at
from distillnet.refit.teacher import refittable, taught, teach

_RELU = ((-math.inf, 0.0),)


@pytest.mark.parametrize("flat", [(), _RELU], ids=["plain", "behind a ReLU"])
@pytest.mark.parametrize("per_image", [1, 5])
def test_each_channel_is_fitted_as_a_layer_of_its_own(
    flat: tuple[tuple[float, float], ...], per_image: int
) -> None:
    x, weight, bias = random(300, 6, 4), random(6, 4, seed=1), random(6, seed=2)
    noise = torch.tensor([0.0, 0.1, 1.0, 3.0, 10.0, 30.0])  # the last ones are better left alone
    change = random(6, 4, seed=3) * torch.tensor([1.0, 1.0, 0.3, 0.1, 0.01, 0.0])[:, None]
    aims = torch.einsum("rcd,cd->rc", x, weight + change) + bias + 0.5
    aims += noise * random(300, 6, seed=4)
    image_r = torch.arange(300) // per_image
    fitted, offset = fit_each(x, aims, weight, bias, flat, image_r)
    for c in range(6):
        one = slice(c, c + 1)
        want = fit_affine(x[:, c], aims[:, one], weight[one], bias[one], flat, image_r)
        assert torch.allclose(fitted[one], want[0], rtol=1e-6, atol=1e-9)
        assert torch.allclose(offset[one], want[1], rtol=1e-6, atol=1e-9)


def test_what_gives_its_aims_already_stays_to_the_bit() -> None:
    x, weight, bias = random(40, 3, 9), random(3, 9, seed=1), random(3, seed=2)
    aims = torch.einsum("rcd,cd->rc", x, weight) + bias
    same = fit_each(x, aims, weight, bias)
    assert torch.equal(same[0], weight)
    assert torch.equal(same[1], bias)


class _Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.each = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mix, self.last = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.each(self.wide(x).relu()).relu()).relu()
        return self.last(x.mean((2, 3)))


def test_it_learns_what_smaller_images_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that saw an edge over three pixels sees it over two: on images left out, too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _Separable().double().eval()
    original, student = capture(net, (24, 24)), capture(net, (16, 16))
    layer = next(node.name for node in student.nodes if node.attrs.get("groups", 1) > 1)
    assert layer in [node.name for node in taught(student)]
    assert layer not in [node.name for node in refittable(student)]
    seen, unseen = _smooth(60, 0), _smooth(30, 1)
    lessons = teach(original, student, seen, max_bytes=10**8)
    asked = teach(original, student, unseen, max_bytes=10**8)

    def error(graph: Graph) -> float:
        small = nn.functional.interpolate(unseen, (16, 16), mode="area")
        y = run(graph, {graph.input.name: small}, [layer])[layer]
        missing = outputs_at(y, asked.places[layer]) - asked.rows[layer]
        return float(missing.square().mean())

    small = nn.functional.interpolate(seen, (16, 16), mode="area")
    fitted = compensate(student, analyse(student), Plan(), lessons, small)
    monkeypatch.setattr(compensation, "taught", refittable)
    others = compensate(student, analyse(student), Plan(), lessons, small)
    assert error(fitted) < 0.75 * min(error(others), error(student))


def _smooth(n: int, seed: int) -> Tensor:
    """Images (N, 3, 24, 24) that are alike at both sizes."""
    return nn.functional.interpolate(random(n, 3, 8, 8, seed=seed), (24, 24), mode="bicubic")
