"""Load a trained network by the name that the command line gives it.

| form | meaning |
|---|---|
| ``torchvision:NAME`` | torchvision's network with its default weights, downloaded |
| ``timm:NAME`` | timm's, the same (extra ``timm``) |
| ``zoo:NAME`` | a network of the paper, see ``distillnet.models.zoo`` |
| ``FILE.py:CALLABLE`` | what the callable returns; **this runs the file** as the user's own code |
| ``FILE.pt2`` | a ``torch.export`` programme, read without running anything in it |

Only ``FILE.py`` is trusted, and only where the user names it: one that a run names is refused
(``run_code``). No other file, weights included, can make this package run code.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from distillnet.classes import ClassTable, imagenet_table, numbered_table, read_class_table
from distillnet.errors import InputError, as_path, expect
from distillnet.images.preprocessing import Preprocessing
from distillnet.models.sources import Source, open_source
from distillnet.models.weights import check_finite, load_weights, read_weights, weights_sha256

__all__ = ["Model", "load_model", "random_model"]


@dataclass(frozen=True, repr=False)
class Model:
    """A network ready for inference: float32, on the CPU, in eval mode, without gradients."""

    name: str  # the MODEL argument as given
    module: nn.Module  # (N, C, H, W) -> (N, classes)
    preprocessing: Preprocessing
    classes: ClassTable
    weights_sha256: str

    def __repr__(self) -> str:
        height, width = self.preprocessing.input_size
        return f"<Model {self.name} at {height} x {width}, {len(self.classes):,} classes>"


def load_model(
    spec: str | Path | nn.Module,
    *,
    weights: str | Path | None = None,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    run_code: bool = True,
) -> Model:
    """Load the network that ``spec`` names, or is, with ``weights`` or those it comes with.

    A module is copied, and needs ``preprocessing``, or the three options that follow.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> how = Preprocessing((32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> load_model(net, preprocessing=how)
    <Model Sequential (a module) at 32 x 32, 8 classes>

    ``input_size`` (pixels, a side), ``mean`` and ``std`` (per channel, of values in 0..1) replace
    what the source says; for ``FILE.py`` they are needed, and the whole image is squashed to the
    input size. Without ``run_code`` a ``FILE.py:CALLABLE`` is refused: for a ``spec`` that a
    file names, such as a run. Raises InputError for anything that is not a trained classifier of
    two or more classes.
    """
    source, spec = _source(spec, preprocessing, run_code)
    how = _preprocessing(spec, source, input_size, mean, std)
    if weights is not None:
        weights = as_path(weights, "the weights")
        module = source.skeleton()
        load_weights(module, source.rename(read_weights(weights)), str(weights))
    else:
        module = _with_own_weights(spec, source)
    return _finish(spec, source, module, how, class_names, str(weights or spec))


def _source(
    spec: str | Path | nn.Module, preprocessing: Preprocessing | None, run_code: bool
) -> tuple[Source, str]:
    """Where a network comes from, and what it is called."""
    if isinstance(spec, nn.Module):
        module = spec
        source = Source(build=lambda: copy.deepcopy(module), fetch=lambda: None)
        spec = f"{type(module).__name__} (a module)"
    else:
        expect(
            spec,
            (str, Path),
            "the network",
            "a name such as 'torchvision:resnet18', a file's path or a torch.nn.Module",
        )
        source, spec = open_source(str(spec), run_code=run_code), str(spec)
    if preprocessing is not None:
        expect(preprocessing, Preprocessing, "preprocessing", "a distillnet.Preprocessing")
        source = replace(source, preprocessing=preprocessing)
    return source, spec


def random_model(
    spec: str,
    *,
    seed: int = 0,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    run_code: bool = True,
) -> Model:
    """The network that ``spec`` names with random weights, equal for equal seeds; for tests.

    Biases, scales and running statistics are random too, since the zeros and ones that networks
    start with hide mistakes. The global random state is left as it was.

    >>> random_model("zoo:tf_mnist").module(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    source = open_source(spec, run_code=run_code)
    how = _preprocessing(spec, source, input_size, mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = source.build()
        _randomise_vectors(module)
    return _finish(spec, source, module, how, None, spec)


def _with_own_weights(spec: str, source: Source) -> nn.Module:
    state = source.fetch()
    if state is None:
        return source.build()
    module = source.skeleton()
    load_weights(module, source.rename(state), f"The download for {spec}")
    return module


def _finish(
    spec: str,
    source: Source,
    module: nn.Module,
    how: Preprocessing,
    class_names: str | Path | None,
    weights_source: str,
) -> Model:
    if any(isinstance(p, nn.UninitializedParameter) for p in module.parameters()):
        raise InputError(
            f"{spec} has lazy layers without weights yet, expected a trained network; run it on one"
            " image and load its weights before it is returned."
        )
    module = module.to("cpu", torch.float32).eval().requires_grad_(False)
    check_finite(module, weights_source)
    n_classes = _count_outputs(spec, module, how)
    if class_names is not None:
        classes = read_class_table(class_names, n_classes)
    elif source.class_names is None and n_classes == 1000:
        classes = imagenet_table()
    else:
        classes = numbered_table(n_classes, source.class_names)
    return Model(spec, module, how, classes, weights_sha256(module))


def _preprocessing(
    spec: str,
    source: Source,
    side: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    if side is not None and side < 1:
        raise InputError(f"Found the input size {side}, expected a number of pixels above 0.")
    size = source.input_size if side is None else (side, side)
    how = source.preprocessing
    if how is None:
        if size is None or mean is None or std is None:
            raise InputError(
                f"{spec} does not tell how images become its input; pass --input-size, --mean and"
                " --std (for values in 0..1, one number per channel) as it was trained, or, from"
                " Python, preprocessing."
            )
        channels: Literal["RGB", "L"] = "L" if len(mean) == 1 else "RGB"
        how = Preprocessing(size, tuple(mean), tuple(std), channels=channels)
    elif size is not None:
        how = how.with_input_size(size)
    _check_range(mean, std, how.divisor)
    n_channels = 1 if how.channels == "L" else 3
    how = replace(how, mean=tuple(mean or how.mean), std=tuple(std or how.std))
    if len(how.mean) != n_channels or len(how.std) != n_channels or min(how.std) <= 0:
        raise InputError(
            f"Found the mean {how.mean} and the deviation {how.std} for {spec}, expected"
            f" {n_channels} of each and deviations above 0; correct --mean and --std."
        )
    return how


def _check_range(mean: Sequence[float] | None, std: Sequence[float] | None, divisor: float) -> None:
    """Refuse a mean or deviation that is of values in another range than the network's.

    A network made for 0..255 has the deviation 1/255, of a range of 0..1.
    """
    most = 255 / divisor
    outside = [m for m in mean or () if not 0 <= m <= most]
    if outside:
        raise InputError(
            f"found --mean {outside[0]:g}, expected numbers from 0 to {most:g}, the range of the"
            f" values it is taken from{_divided(outside[0], divisor)}."
        )
    outside = [s for s in std or () if not most / 1000 <= s <= most]
    if outside:
        raise InputError(
            f"found --std {outside[0]:g}, expected numbers from {most / 1000:g} to {most:g}, the"
            f" range of the values that it divides{_divided(outside[0], divisor)}."
        )


def _divided(value: float, divisor: float) -> str:
    """What to do with a number that is of 0..255 where 0..1 is expected."""
    if not (divisor == 255 and 1 < value <= 255):
        return ""
    return f"; for values of 0..255 divide by 255, which gives {value / 255:.4g}"


def _count_outputs(spec: str, module: nn.Module, how: Preprocessing) -> int:
    """The number of classes, from one forward pass on two black images."""
    shape = (2, len(how.mean), *how.input_size)
    # The network is the user's; whatever it raises on a proper input, it cannot be used.
    try:
        with torch.inference_mode():
            y = module(torch.zeros(shape))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{spec} fails on images of shape {shape}: {reason[:200]}. Expected a network from"
            " (N, C, H, W), any N, to scores (N, classes); correct --input-size and the number of"
            " values in --mean, and export programmes with a dynamic batch dimension."
        ) from error
    if not isinstance(y, Tensor):
        raise InputError(
            f"{spec} returns a {type(y).__name__}, expected one tensor of scores (N, classes);"
            " wrap it so that it returns its main output only."
        )
    if y.ndim != 2 or y.shape[0] != 2 or y.shape[1] < 2:
        raise InputError(
            f"{spec} returns shape {tuple(y.shape)} for {shape}, expected (2, classes) with two or"
            " more classes; distillnet works on image classifiers."
        )
    if not bool(torch.isfinite(y).all()):
        raise InputError(
            f"{spec} gives NaN or infinite scores for a black image, expected finite ones; check"
            " the weights and, for a file of your own, the network."
        )
    return y.shape[1]


@torch.no_grad()
def _randomise_vectors(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        kind = name.rpartition(".")[2]
        if not tensor.is_floating_point() or tensor.numel() != max(tensor.shape, default=1):
            continue
        if kind in ("bias", "running_mean"):
            tensor.normal_(0.0, 0.1)
        else:  # scales of every kind, running variances
            tensor.uniform_(0.5, 1.5)
