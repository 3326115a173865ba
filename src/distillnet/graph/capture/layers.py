"""Layers as nodes: convolutions, linear layers, pooling, and means and sums.

A handler takes the builder and the operator's arguments; ``aten`` says which operator is whose.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from distillnet.graph.capture.builder import Builder, View
from distillnet.graph.capture.pointwise import add, mul

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "addmm",
    "amax",
    "avg_pool",
    "conv",
    "convolution",
    "linear",
    "max_pool",
    "mean",
    "total",
]


def _pair(value: Any) -> tuple[int, int]:
    values = [value] * 2 if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def conv(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> View:
    """A convolution; an odd pixel of same padding becomes a node of its own."""
    if not isinstance(weight, Tensor) or weight.ndim != 4 or len(x.shape) != 3:
        raise b.refuse("is not a two-dimensional convolution with constant weights")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    x = b.tensor(x)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
        padding = [t // 2 for t in total]
        if any(t % 2 for t in total):  # the odd pixel goes to the right and to the bottom
            (top, left), (bottom, right) = padding, [t - t // 2 for t in total]
            channels, height, width = x.shape
            shape = (channels, height + top + bottom, width + left + right)
            sides = {"pad": (left, right, top, bottom), "value": 0.0}
            x, padding = b.emit("pad", [x], sides, shape=shape), 0
    attrs = {
        "stride": _pair(stride),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "groups": groups,
    }
    return b.emit("conv", [x], attrs, params)


def convolution(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> View:
    """A convolution as core ATen writes it, transposed or not."""
    if transposed:
        raise b.refuse("is a transposed convolution, which classification networks do not have")
    if weight.ndim == 3 and (list(stride), list(dilation), groups) == ([1], [1], 1):
        return _channel_conv(b, x, weight, bias, padding)
    return conv(b, x, weight, bias, stride, padding, dilation, groups)


def _channel_conv(b: Builder, x: View, weight: Tensor, bias: Tensor | None, padding: Any) -> View:
    """A convolution over the channels of features: the gate of efficient channel attention."""
    kernel = weight.flatten()
    if weight.shape[:2] != (1, 1) or list(padding) != [len(kernel) // 2] or len(kernel) % 2 == 0:
        raise b.refuse("is a one-dimensional convolution, and no gate over channels")
    features = b.tensor(b.move(x, lambda i: i.flatten(1)))
    attrs = {"channels": features.shape[0]}
    y = b.emit("channel_conv", [features], attrs, {"kernel": kernel}, features.shape)
    if bias is not None:
        y = add(b, y, bias)
    return b.move(y, lambda i: i[:, None])


def linear(b: Builder, x: View, weight: Tensor, bias: Tensor | None = None) -> View:
    """A linear layer, on features or on a channels-last map."""
    if not isinstance(weight, Tensor):
        raise b.refuse("multiplies two activations (attention), which distillnet does not follow")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    if len(x.shape) == 1:
        return b.emit("linear", [b.tensor(x)], {}, params)
    # On a channels-last map (H, W, C) a linear layer is a 1x1 convolution.
    last = b.tensor(b.move(x, lambda i: i.movedim(-1, 1))) if len(x.shape) == 3 else None
    if last is None:
        raise b.refuse(f"works on a tensor (N, {x.shape}) that is neither features nor a map")
    params["weight"] = weight[:, :, None, None]
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    y = b.emit("conv", [last], attrs, params, (weight.shape[0], *last.shape[1:]))
    return b.move(y, lambda i: i.movedim(1, -1))


def addmm(b: Builder, bias: Tensor, x: View, weight: Tensor, **scales: Any) -> View:
    """A linear layer, written as a product with the transposed weights."""
    if scales or not isinstance(weight, Tensor):
        raise b.refuse("is not a linear layer with constant weights")
    return linear(b, x, weight.t(), bias)


def max_pool(
    b: Builder,
    x: View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> View:
    """Maximum pooling."""
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "ceil_mode": ceil_mode,
    }
    return b.emit("max_pool", [b.tensor(x)], attrs)


def avg_pool(
    b: Builder,
    x: View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> View:
    """Average pooling."""
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor,
    }
    return b.emit("avg_pool", [b.tensor(x)], attrs)


def adaptive_avg_pool(b: Builder, x: View, size: Any) -> View:
    """Average pooling to a size, which is the global mean at 1 x 1."""
    size = _pair(size)
    if size == (1, 1):
        return b.emit("mean", [b.tensor(x)], {"keepdim": True})
    return b.emit("adaptive_avg_pool", [b.tensor(x)], {"output_size": size})


def adaptive_max_pool(b: Builder, x: View, size: Any) -> tuple[View, None]:
    """Maximum pooling to a size, and no indices."""
    return (b.emit("adaptive_max_pool", [b.tensor(x)], {"output_size": _pair(size)}), None)


def amax(b: Builder, x: View, dim: Any = (), keepdim: bool = False) -> View:
    """The maximum over height and width, or over the channels."""
    dims = sorted(d % (len(x.shape) + 1) for d in dim)
    if dims == [1] and len(x.shape) == 3:
        x = b.tensor(x)
        shape = (1, *x.shape[1:])
        y = b.emit("channel_max", [x], {"channels": x.shape[0]}, shape=shape)
        return y if keepdim else b.move(y, lambda i: i.squeeze(1))
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"takes the maximum over dimensions {dims}; only height and width are")
    attrs = {"output_size": (1, 1)}
    y = b.emit("adaptive_max_pool", [b.tensor(x)], attrs, shape=(x.shape[0], 1, 1))
    return y if keepdim else b.move(y, lambda i: i.flatten(1))


def _sum_of_channels(b: Builder, x: View, weight: float) -> View:
    filters = torch.full((1, x.shape[0], 1, 1), weight, dtype=b.like.dtype, device=b.like.device)
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    return b.emit("conv", [b.tensor(x)], attrs, {"weight": filters}, (1, *x.shape[1:]))


def total(b: Builder, x: View, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> View:
    """The sum over height and width, or over parts of the channels that are seen side by side."""
    dims = sorted(d % (len(x.shape) + 1) for d in dim or [])
    if len(x.shape) == 3 and dims == [2, 3]:
        return mul(b, mean(b, x, dim, keepdim), float(x.shape[1] * x.shape[2]))
    if len(x.shape) == 3 and dims == [1]:
        y = _sum_of_channels(b, x, 1.0)
        return y if keepdim else b.move(y, lambda i: i.squeeze(1))
    if len(x.shape) != 4 or dims != [1] or keepdim:
        raise b.refuse(f"sums over dimensions {dims}, which is not followed")
    parts = [b.move(x, partial(torch.select, dim=1, index=k)) for k in range(x.shape[0])]
    done = parts[0]
    for part in parts[1:]:
        done = add(b, done, part)
    return done


def mean(b: Builder, x: View, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> View:
    """The mean over height and width, or over the channels: a convolution with equal weights."""
    dims = sorted(d % (len(x.shape) + 1) for d in dim or [])
    if len(x.shape) == 3 and dims == [1]:
        y = _sum_of_channels(b, x, 1 / x.shape[0])
        return y if keepdim else b.move(y, lambda i: i.squeeze(1))
    if len(x.shape) == 3 and dims == [1, 2]:  # channels-last: over H and W
        x, dims = b.move(x, lambda i: i.movedim(-1, 1)), [2, 3]
        if keepdim:
            raise b.refuse("keeps the pooled dimensions of a channels-last map")
    elif len(x.shape) == 2 and dims == [2] and not keepdim:  # of a map with its pixels in a row
        sides = b.nodes[x.node].shape[1:]
        x, dims = b.move(x, lambda i: i.reshape(*i.shape[:2], *sides)), [2, 3]
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"averages over dimensions {dims}; only height and width are followed")
    shape = (x.shape[0], 1, 1) if keepdim else x.shape[:1]
    return b.emit("mean", [b.tensor(x)], {"keepdim": keepdim}, shape=shape)
