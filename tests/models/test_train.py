"""Training: it learns, it repeats itself, and what makes it quick changes nothing."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from distillnet.classes import numbered_table
from distillnet.errors import DistillnetError, InputError
from distillnet.images import open_images
from distillnet.models import train
from distillnet.models.response_norm import BandedResponseNorm
from distillnet.models.zoo import tf_cifar, tf_mnist
from distillnet.models.zoo.tensorflow import TF_MNIST_PREPROCESSING

_TINY = train.Recipe(side=12, epochs=3, batch_size=16, peak_lr=0.05, weight_decay=0.0)


def _tiny_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, 4),
    )


def _quarters(n: int, seed: int, side: int = 12) -> tuple[Tensor, Tensor]:
    """Noise with one bright quarter, whose place is the class."""
    generator = torch.Generator().manual_seed(seed)
    x_nchw = 0.3 * torch.randn(n, 1, side, side, generator=generator)
    labels_n = torch.arange(n) % 4
    half = side // 2
    for x_chw, label in zip(x_nchw, labels_n.tolist(), strict=True):
        top, left = half * (label // 2), half * (label % 2)
        x_chw[:, top : top + half, left : left + half] += 1.0
    return x_nchw, labels_n


@pytest.mark.parametrize(
    "recipe",
    [
        _TINY,
        replace(_TINY, shift=1),
        replace(_TINY, contrast=0.3, label_smoothing=0.1),
    ],
)
def test_learns_what_can_be_learnt(recipe: train.Recipe) -> None:
    told: list[train.Epoch] = []
    result = train.train_on_tensors(
        _tiny_network, _quarters(160, 0), _quarters(80, 1), recipe, on_epoch=told.append
    )
    assert result.test_accuracy > 0.9  # chance is 0.25
    assert [(epoch.number, epoch.of) for epoch in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1].loss < told[0].loss


def test_result_holds_the_weights_that_were_tested() -> None:
    x_nchw, labels_n = _quarters(80, 1)
    result = train.train_on_tensors(_tiny_network, _quarters(160, 0), (x_nchw, labels_n), _TINY)
    model = _tiny_network()
    model.load_state_dict(result.state_dict)
    accuracy = (model.eval()(x_nchw).argmax(1) == labels_n).double().mean().item()
    assert accuracy == result.test_accuracy
    assert {tensor.dtype for tensor in result.state_dict.values()} == {torch.float32}


def test_equal_seeds_give_equal_weights_and_leave_the_global_state() -> None:
    def run(seed: int) -> dict[str, Tensor]:
        data = _quarters(64, 0)
        return train.train_on_tensors(_tiny_network, data, data, _TINY, seed=seed).state_dict

    before = torch.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_test_images_are_cropped_in_the_centre() -> None:
    x_nchw, labels_n = _quarters(80, 1)
    padded = nn.functional.pad(x_nchw, [2] * 4, value=9.0)
    plain, cropped = (
        train.train_on_tensors(_tiny_network, _quarters(160, 0), (x, labels_n), _TINY).test_accuracy
        for x in (x_nchw, padded)
    )
    assert plain == cropped


def test_augmented_views_are_crops_of_the_image() -> None:
    x_nchw = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    recipe = replace(_TINY, side=4, shift=0, flip=True)
    seen = [set(), set()]
    for seed in range(60):
        torch.manual_seed(seed)
        for index, view in enumerate(train._augment(x_nchw, recipe)):
            seen[index].add(view.numpy().tobytes())
    for index, x_chw in enumerate(x_nchw):
        views = {
            v2.functional.crop(image, top, left, 4, 4).contiguous().numpy().tobytes()
            for image in (x_chw, x_chw.flip(-1))
            for top in range(3)
            for left in range(3)
        }
        assert seen[index] == views


@pytest.mark.parametrize(
    ("size", "alpha", "beta", "k", "channels"),
    [(9, 1e-3, 0.75, 1.0, 64), (5, 1e-1, 0.5, 2.0, 7), (4, 1.0, 0.75, 1.0, 6)],
)
def test_quick_response_norm_equals_pytorchs(
    size: int, alpha: float, beta: float, k: float, channels: int
) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(2, channels, 4, 5, dtype=torch.float64)
    slow = nn.LocalResponseNorm(size, alpha, beta, k)
    torch.testing.assert_close(BandedResponseNorm(slow)(x), slow(x))


@pytest.mark.parametrize("build", [tf_mnist, tf_cifar])
def test_the_copy_to_train_has_the_keys_of_the_network(build: train.Callable) -> None:
    model = build()
    assert list(train._for_training(model).state_dict()) == list(model.state_dict())
    assert not any(isinstance(m, BandedResponseNorm) for m in model.modules())


@pytest.mark.slow
def test_bundled_digits_are_learnt() -> None:
    pytest.importorskip("sklearn")
    x_nhw, labels_n = train.bundled_digits()
    assert (x_nhw.shape, x_nhw.dtype) == ((1797, 28, 28), torch.uint8)
    how = TF_MNIST_PREPROCESSING
    x_nchw = (x_nhw[:, None] / how.divisor - how.mean[0]) / how.std[0]
    sets = (x_nchw[:1400], labels_n[:1400]), (x_nchw[1400:], labels_n[1400:])
    recipe = replace(train.DIGITS_RECIPE, epochs=2)
    assert train.train_on_tensors(tf_mnist, *sets, recipe).test_accuracy > 0.85


def test_weights_come_back_as_they_were(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    state = tf_mnist().to(memory_format=torch.channels_last).state_dict()
    train.save_weights(path, {"old": torch.zeros(1)})
    train.save_weights(path, state)
    back = safetensors.torch.load_file(path)
    assert list(tmp_path.iterdir()) == [path]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_weights_that_cannot_be_written_leave_nothing(tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    for path in (tmp_path / "missing" / "w.safetensors", taken):
        with pytest.raises(InputError, match="Cannot write"):
            train.save_weights(path, {"w": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == [taken]


@pytest.mark.parametrize(
    ("recipe", "n", "error", "message"),
    [
        (replace(_TINY, epochs=0), 8, InputError, "0 epochs"),
        (_TINY, 0, InputError, "0 training and 8 test"),
        (replace(_TINY, peak_lr=1e20), 64, DistillnetError, "diverged in epoch"),
    ],
)
def test_what_cannot_be_trained(recipe, n, error, message) -> None:
    with pytest.raises(error, match=message):
        train.train_on_tensors(_tiny_network, _quarters(n, 0), _quarters(8, 1), recipe)


def test_only_the_reference_networks_are_trained(tmp_path) -> None:
    for label in "01":
        folder = tmp_path / label
        folder.mkdir()
        v2.functional.to_pil_image(torch.zeros(1, 28, 28)).save(folder / "a.png")
    images = open_images(tmp_path, numbered_table(10)).train
    with pytest.raises(InputError, match="zoo:tf_mnist and zoo:tf_cifar"):
        train.train("torchvision:resnet18", images, images)
    result = train.train("zoo:tf_mnist", images, images, epochs=1)
    assert result.state_dict.keys() == tf_mnist().state_dict().keys()
