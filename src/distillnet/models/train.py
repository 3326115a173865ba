"""Train the small reference networks from scratch, in minutes on two cores.

The networks are those of ``distillnet.models.zoo.tensorflow``; training is plain SGD under a
one-cycle learning rate. Two things make it quick on a processor and change nothing in what is
computed: channels-last memory, and local response normalisation written as a 1x1 convolution. A
third, bfloat16 arithmetic where the processor has it, rounds; weights and test accuracy stay
float32.

Under torchrun several processes share each batch (``ranks``) and find the same weights but for
rounding.
"""

import copy
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.errors import DistillnetError, InputError
from distillnet.images import ImageSet, load_all
from distillnet.images.preprocessing import Preprocessing
from distillnet.models.ranks import ALONE, Ranks, SharedDropout
from distillnet.models.response_norm import BandedResponseNorm
from distillnet.models.zoo.tensorflow import (
    TF_CIFAR_PREPROCESSING,
    TF_MNIST_PREPROCESSING,
    tf_cifar,
    tf_mnist,
)

__all__ = [
    "CIFAR_RECIPE",
    "DIGITS_RECIPE",
    "MNIST_RECIPE",
    "Epoch",
    "Recipe",
    "TrainResult",
    "bundled_digits",
    "save_weights",
    "train",
    "train_on_tensors",
]


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: SGD with Nesterov momentum under a one-cycle learning rate.

    Every image is padded by ``shift`` pixels of its own border and cropped at random to
    ``side``, the network's input; test images are cropped in the centre.
    """

    side: int
    epochs: int
    batch_size: int
    peak_lr: float
    weight_decay: float
    momentum: float = 0.9
    label_smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    contrast: float = 0.0  # each image's values times 1 +- this


MNIST_RECIPE = Recipe(side=28, epochs=4, batch_size=128, peak_lr=0.05, weight_decay=5e-4, shift=2)
CIFAR_RECIPE = Recipe(
    side=24,
    epochs=20,
    batch_size=128,
    peak_lr=0.05,
    weight_decay=1e-3,
    label_smoothing=0.05,
    flip=True,
    contrast=0.2,
)
DIGITS_RECIPE = replace(MNIST_RECIPE, epochs=12, batch_size=64, shift=1)


@dataclass(frozen=True)
class Epoch:
    """What ``on_epoch`` is told after each pass over the training images."""

    number: int  # 1 .. of
    of: int
    loss: float  # mean over the epoch
    seconds: float  # since the start of the training


@dataclass(frozen=True)
class TrainResult:
    """A trained network: float32 weights on the CPU, and its top-1 share of the test images."""

    state_dict: dict[str, Tensor]
    test_accuracy: float
    seconds: float
    unreadable: tuple[str, ...] = ()  # a message for each image that was left out, path first


@dataclass(frozen=True)
class _Trainable:
    build: Callable[[], nn.Module]
    recipe: Recipe
    canvas: Preprocessing  # how a training image is read, before the random crop


_TRAINABLE = {
    "zoo:tf_mnist": _Trainable(tf_mnist, MNIST_RECIPE, TF_MNIST_PREPROCESSING),
    "zoo:tf_cifar": _Trainable(
        tf_cifar, CIFAR_RECIPE, replace(TF_CIFAR_PREPROCESSING, input_size=(32, 32))
    ),
}


def train(
    model_name: str,
    train_images: ImageSet,
    test_images: ImageSet,
    *,
    epochs: int | None = None,
    seed: int = 0,
    workers: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train ``zoo:tf_mnist`` or ``zoo:tf_cifar`` on images; ``epochs`` None is the recipe's.

    Each of several ``ranks`` reads all images and computes its part of every batch.

    Raises InputError for any other network and for fewer than one epoch.
    """
    if model_name not in _TRAINABLE:
        raise InputError(
            f"{model_name} cannot be trained here: distillnet distils networks that are trained"
            f" already, and trains only {' and '.join(_TRAINABLE)}. For another network pass"
            " trained weights with --weights."
        )
    chosen = _TRAINABLE[model_name]
    recipe = chosen.recipe if epochs is None else replace(chosen.recipe, epochs=epochs)
    train_set = load_all(train_images, chosen.canvas, workers=workers)
    test_set = load_all(test_images, chosen.canvas, workers=workers)
    result = train_on_tensors(
        chosen.build,
        (train_set.x_nchw, train_set.labels_n),
        (test_set.x_nchw, test_set.labels_n),
        recipe,
        seed=seed,
        on_epoch=on_epoch,
        ranks=ranks,
    )
    return replace(result, unreadable=train_set.unreadable + test_set.unreadable)


def train_on_tensors(
    build: Callable[[], nn.Module],
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    recipe: Recipe,
    *,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train what ``build`` returns on normalised images (N, C, H, W) with labels (N,).

    H and W are at least ``recipe.side``. The same seed gives the same weights on the same machine
    with the same number of threads; the global random state is left as it was. Raises InputError
    for an empty set or fewer than one epoch, DistillnetError when the loss diverges.
    """
    x_nchw, labels_n = train_set
    if recipe.epochs < 1:
        raise InputError(f"Found {recipe.epochs} epochs to train for, expected at least 1.")
    if len(x_nchw) == 0 or len(test_set[0]) == 0:
        raise InputError(
            f"Found {len(x_nchw)} training and {len(test_set[0])} test images, expected at least"
            " one of each; check the folder given as --data."
        )
    start_s = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        fast = _for_training(model, ranks)
        _fit(fast, x_nchw, labels_n, recipe, ranks, start_s, on_epoch)
    model.load_state_dict(fast.state_dict())
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    return TrainResult(
        state, _accuracy(fast, test_set, recipe, ranks), time.perf_counter() - start_s
    )


def _fit(
    model: nn.Module,
    x_nchw: Tensor,
    labels_n: Tensor,
    recipe: Recipe,
    ranks: Ranks,
    start_s: float,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    # Biases are left to decay too: on networks this small it makes no measurable difference.
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.peak_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    n_batches = -(-len(x_nchw) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.peak_lr, total_steps=recipe.epochs * n_batches, cycle_momentum=False
    )
    shared = [part for part in model.modules() if isinstance(part, SharedDropout)]
    parallel = ranks.parallel(model.train())
    for number in range(1, recipe.epochs + 1):
        loss_sum = 0.0
        for picked in torch.randperm(len(x_nchw)).split(recipe.batch_size):
            own = ranks.own(len(picked))
            x = _augment(x_nchw[picked], recipe, own).contiguous(memory_format=torch.channels_last)
            for part in shared:
                part.batch = len(picked)
            with torch.autocast("cpu", torch.bfloat16, enabled=_has_fast_bfloat16()):
                logits = parallel(x)
            loss = F.cross_entropy(
                logits.float(),
                labels_n[picked][own],
                label_smoothing=recipe.label_smoothing,
                reduction="sum",
            )
            optimiser.zero_grad()
            # The mean over all processes of this is the mean over the batch, however it is shared.
            (loss * (ranks.count / len(picked))).backward()
            optimiser.step()
            schedule.step()
            loss_sum += loss.item()
        loss_mean = ranks.total(loss_sum) / len(x_nchw)
        if not torch.isfinite(torch.tensor(loss_mean)):
            raise DistillnetError(
                f"The training diverged in epoch {number} (loss {loss_mean}); lower the recipe's"
                f" peak learning rate of {recipe.peak_lr}."
            )
        if on_epoch is not None:
            on_epoch(Epoch(number, recipe.epochs, loss_mean, time.perf_counter() - start_s))


def _augment(x_nchw: Tensor, recipe: Recipe, own: slice = slice(None)) -> Tensor:
    """A random view (N, C, side, side) of each image, drawn for all and made for ``own``."""
    n, side = len(x_nchw), recipe.side
    x_nchw = x_nchw[own]
    if recipe.shift:
        x_nchw = F.pad(x_nchw, [recipe.shift] * 4, mode="replicate")
    # Every crop of every image as a view (N, C, tops, lefts, side, side); one of each is copied.
    crops = x_nchw.unfold(2, side, 1).unfold(3, side, 1)
    tops_n, lefts_n = (torch.randint(crops.shape[dim], (n,))[own] for dim in (2, 3))
    x_nchw = crops[torch.arange(len(crops)), :, tops_n, lefts_n]
    if recipe.flip:
        x_nchw = torch.where(torch.rand(n, 1, 1, 1)[own] < 0.5, x_nchw.flip(-1), x_nchw)
    if recipe.contrast:
        x_nchw = x_nchw * (1 + recipe.contrast * (2 * torch.rand(n, 1, 1, 1)[own] - 1))
    return x_nchw


def _accuracy(
    model: nn.Module, test_set: tuple[Tensor, Tensor], recipe: Recipe, ranks: Ranks
) -> float:
    n_images, own = len(test_set[0]), ranks.own(len(test_set[0]))
    x_nchw, labels_n = test_set[0][own], test_set[1][own]
    top, left = ((length - recipe.side) // 2 for length in x_nchw.shape[2:])
    x_nchw = x_nchw[:, :, top : top + recipe.side, left : left + recipe.side]
    model.eval()
    with torch.inference_mode():
        best_n = torch.cat([model(x).argmax(1) for x in x_nchw.split(500)])
    return ranks.total((best_n == labels_n).sum().item()) / n_images


def _for_training(model: nn.Module, ranks: Ranks = ALONE) -> nn.Module:
    """A copy of the model that computes the same faster; its state dict has the same keys."""
    fast = copy.deepcopy(model)
    for name, module in list(fast.named_modules()):
        if isinstance(module, nn.LocalResponseNorm):
            fast.set_submodule(name, BandedResponseNorm(module))
        elif isinstance(module, nn.Dropout) and ranks.count > 1:
            fast.set_submodule(name, SharedDropout(module.p, ranks))
    return fast.to(memory_format=torch.channels_last)


def _has_fast_bfloat16() -> bool:
    # PyTorch has no public question for this. Without the instructions bfloat16 is emulated and
    # slower than float32, so anything but a clear yes is a no.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def bundled_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits as uint8 (N, 28, 28) with labels (N,).

    They come with the library (8x8, 16 grey levels) and are enlarged here, so that a demo needs
    no download. Raises InputError where scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "The bundled digits need scikit-learn, which is not installed; run"
            " pip install 'distillnet[demo]'."
        ) from None
    digits = load_digits()
    x_nhw = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    x_nhw = F.interpolate(x_nhw, size=(28, 28), mode="bicubic", align_corners=False)[:, 0]
    return x_nhw.round().clamp(0, 255).to(torch.uint8), torch.from_numpy(digits.target).long()


def save_weights(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, all of it or nothing.

    Raises InputError when the folder is missing or cannot be written to, OSError on a full disk.
    """
    data = safetensors.torch.save({key: value.contiguous() for key, value in state_dict.items()})
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        # A temporary file is private to its owner; the result follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror or error}. Give a path in a folder that exists"
            " and can be written to."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
