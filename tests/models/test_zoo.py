"""The networks of the paper have the sizes it states, and recognise what they should."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distillnet.images import limit, load_all, open_images
from distillnet.models import load_model
from distillnet.models.zoo import bvlc_googlenet, tf_cifar, tf_mnist
from distillnet.models.zoo.googlenet import from_caffe_names


def _count_macs(module: nn.Module, x_nchw: Tensor) -> int:
    """By a formula per layer: output positions times the weights that each of them reads."""
    macs = 0

    def count(layer: nn.Module, _: object, y: Tensor) -> None:
        nonlocal macs
        positions = y.shape[2] * y.shape[3] if y.ndim == 4 else 1
        macs += positions * layer.weight.numel()

    handles = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    module(x_nchw)
    for handle in handles:
        handle.remove()
    return macs


@pytest.mark.parametrize(
    ("build", "shape", "n_parameters", "n_macs"),
    [
        (
            tf_mnist,
            (1, 28, 28),
            (25 * 1 + 1) * 32 + (25 * 32 + 1) * 64 + (49 * 64 + 1) * 1024 + (1024 + 1) * 10,
            784 * 25 * 32 + 196 * 25 * 32 * 64 + 49 * 64 * 1024 + 1024 * 10,
        ),
        (
            tf_cifar,
            (3, 24, 24),
            (25 * 3 + 1) * 64 + (25 * 64 + 1) * 64 + 2305 * 384 + 385 * 192 + 193 * 10,
            576 * 25 * 3 * 64 + 144 * 25 * 64 * 64 + 2304 * 384 + 384 * 192 + 192 * 10,
        ),
        (bvlc_googlenet, (3, 224, 224), 6_998_552, None),
    ],
)
def test_sizes_of_the_zoo(build, shape, n_parameters, n_macs) -> None:
    module = build().eval()
    assert sum(p.numel() for p in module.parameters()) == n_parameters
    macs = _count_macs(module, torch.zeros(1, *shape))
    assert n_macs is None or macs == n_macs


def test_sizes_that_the_method_states() -> None:
    googlenet = bvlc_googlenet().eval()
    assert sum(p.numel() for p in tf_mnist().parameters()) == 3_274_634
    assert round(_count_macs(tf_mnist(), torch.zeros(1, 1, 28, 28)) / 1e6, 2) == 13.88
    # Without the last layer.
    macs = _count_macs(googlenet, torch.zeros(1, 3, 224, 224)) - 1024 * 1000
    assert round(macs / 1e6, 2) == 1581.65


def test_tensorflows_response_norm() -> None:
    """sqr_sum[d] = sum(x[d - 4 : d + 5] ** 2); y = x / (1 + 0.001 / 9 * sqr_sum) ** 0.75."""
    torch.manual_seed(0)
    x = 5 * torch.randn(2, 20, 3, 3, dtype=torch.float64)
    sums = torch.stack([(x[:, max(0, d - 4) : d + 5] ** 2).sum(1) for d in range(20)], dim=1)
    torch.testing.assert_close(tf_cifar().norm1(x), x / (1 + 0.001 / 9 * sums) ** 0.75)


def test_caffe_names_cover_the_network() -> None:
    ours = bvlc_googlenet().state_dict()
    assert sum("inception_" in name for name in ours) == 9 * 6 * 2
    assert dict(from_caffe_names(ours)).keys() == ours.keys()  # our own names stay
    assert from_caffe_names({"odd": torch.zeros(1)}).keys() == {"odd"}


@pytest.mark.slow
def test_bvlc_googlenet_recognises_real_images(data_dir: Path) -> None:
    weights = data_dir / "weights" / "bvlc_googlenet.safetensors"
    model = load_model("zoo:bvlc_googlenet", weights=weights)
    images = limit(open_images(data_dir / "imagenette" / "val", model.classes).train, 5, seed=0)
    loaded = load_all(images, model.preprocessing)
    with torch.inference_mode():
        scores = model.module(loaded.x_nchw)
    mission = loaded.labels_n.unique()
    closed = mission[scores[:, mission].argmax(1)]
    assert len(loaded.labels_n) == 50
    # 69.2 % and 97.6 % on all 500.
    assert (scores.argmax(1) == loaded.labels_n).double().mean() > 0.55
    assert (closed == loaded.labels_n).double().mean() > 0.9
