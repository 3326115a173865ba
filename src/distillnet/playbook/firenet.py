"""A grid over the FireNet family: what each of its networks costs, before any is trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.images.preprocessing import Size
from distillnet.models.designs import FireDesign
from distillnet.models.zoo import FireNet
from distillnet.playbook.quantities import Quantities

__all__ = ["KNOWN", "FirePoint", "fire_grid", "fire_point"]

_MOST_POINTS = 2000  # of a grid, whose rows somebody wants to read

KNOWN: Mapping[FireDesign, str] = {
    FireDesign(): "SqueezeNet 1.0",
    FireDesign(conv1_filters=64, conv1_kernel=3, pools=(1, 3, 5)): "SqueezeNet 1.1",
}


@dataclass(frozen=True)
class FirePoint:
    """A design and what it costs; ``name`` where the literature has one for it."""

    design: FireDesign
    quantities: Quantities
    name: str | None


def fire_grid(axes: Mapping[str, Sequence[Any]]) -> tuple[FireDesign, ...]:
    """All designs with these values of these metaparameters, the last varying fastest.

    Raises InputError for more designs than anybody reads, or for one that cannot be.

    >>> [design.share_3x3 for design in fire_grid({"share_3x3": (0.25, 0.5)})]
    [0.25, 0.5]
    """
    n_points = math.prod(len(values) for values in axes.values())
    if not 1 <= n_points <= _MOST_POINTS:
        raise InputError(
            f"found a grid of {n_points:,} networks, expected 1 to {_MOST_POINTS:,}; give fewer"
            " values"
        )
    order = [field.name for field in fields(FireDesign) if field.name in axes]
    combined = product(*(axes[name] for name in order))
    return tuple(
        replace(FireDesign(), **dict(zip(order, chosen, strict=True))) for chosen in combined
    )


def fire_point(design: FireDesign, size: Size = (224, 224)) -> FirePoint:
    """What a design costs at an input size (H, W); the output as ``quantities`` has it.

    Nothing is computed: the network runs on PyTorch's meta device, which knows shapes only.

    Raises InputError where the pools leave nothing of so small an input.

    >>> fire_point(FireDesign()).quantities.params
    1248424
    """
    with torch.device("meta"):
        module = FireNet(design)
        x = torch.empty(1, 3, *size)
    macs = output = 0
    classifier = module.classifier[1]

    def count(layer: nn.Module, inputs: tuple[Tensor], y: Tensor) -> None:
        nonlocal macs, output
        assert isinstance(layer.weight, Tensor)
        macs += layer.weight.numel() * y.shape[2] * y.shape[3]
        output += design.classes if layer is classifier else y.numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    try:
        module.eval()(x)
    except RuntimeError as error:
        raise InputError(
            f"{design.model()} leaves nothing of an input of {size[0]}x{size[1]}; choose fewer"
            " pools or a larger input"
        ) from error
    return FirePoint(design, Quantities(output, design.params(), macs), KNOWN.get(design))
