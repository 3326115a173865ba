"""Normalisations as nodes.

A handler takes the builder and the operator's arguments; ``aten`` says which operator is whose.
"""

from typing import Any

import torch
from torch import Tensor

from distillnet.graph.capture.builder import Builder, View

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "native_group_norm"]


def batch_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    *rest: Any,
) -> tuple[View, None, None]:
    """Batch norm with running statistics: an affine map of each channel."""
    eps = rest[-1]
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    return (b.elementwise(x, "affine", {}, {"scale": scale, "shift": shift}), None, None)


def group_norm(
    b: Builder,
    x: View,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> View:
    """Normalisation of each group of channels over the whole map."""
    x = b.tensor(x)
    params = _scale_and_shift(b, weight, bias, x.shape[0])
    return b.emit("group_norm", [x], {"groups": groups, "eps": eps}, params, x.shape)


def native_group_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    n: Any,
    channels: int,
    places: Any,
    groups: int,
    eps: float,
) -> tuple[View, None, None]:
    """The same as core ATen writes it."""
    return group_norm(b, x, groups, weight, bias, eps), None, None


def instance_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> View:
    """Normalisation of each channel over its own map, or with running statistics."""
    if use_input_stats:
        return group_norm(b, x, x.shape[0], weight, bias, eps)
    if mean is None or var is None:
        raise b.refuse("has neither statistics of its input nor of its training")
    return batch_norm(b, x, weight, bias, mean, var, eps)[0]


def layer_norm(
    b: Builder,
    x: View,
    normalized: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> View:
    """Layer norm over the channels."""
    if len(normalized) != 1 or normalized[0] != x.shape[-1] or len(x.shape) not in (1, 3):
        raise b.refuse(f"normalises over {list(normalized)}; only the channels are followed")
    params = _scale_and_shift(b, weight, bias, normalized[0])
    if len(x.shape) == 1:
        return b.emit("layer_norm", [b.tensor(x)], {"eps": eps}, params, x.shape)
    first = b.tensor(b.move(x, lambda i: i.movedim(-1, 1)))
    y = b.emit("layer_norm", [first], {"eps": eps}, params, first.shape)
    return b.move(y, lambda i: i.movedim(1, -1))


def _scale_and_shift(
    b: Builder, weight: Tensor | None, bias: Tensor | None, width: int
) -> dict[str, Tensor]:
    ones = torch.ones(width, dtype=b.like.dtype, device=b.like.device)
    return {
        "weight": ones if weight is None else weight,
        "bias": ones * 0 if bias is None else bias,
    }
