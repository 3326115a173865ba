"""The operator table: for each ATen operator, how it becomes nodes of the graph.

A handler takes the builder and the operator's arguments, activations as views and everything else
as it is, and returns a view. It refuses the forms that it does not follow.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distillnet.graph.capture.builder import Builder, View, holds_view, is_range

__all__ = ["TABLE"]


def _pair(value: Any) -> tuple[int, int]:
    values = [value] * 2 if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def _conv(
    b: Builder,
    x: View,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> View:
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


def _convolution(
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
    if transposed:
        raise b.refuse("is a transposed convolution, which classification networks do not have")
    return _conv(b, x, weight, bias, stride, padding, dilation, groups)


def _linear(b: Builder, x: View, weight: Tensor, bias: Tensor | None = None) -> View:
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


def _addmm(b: Builder, bias: Tensor, x: View, weight: Tensor, **scales: Any) -> View:
    if scales or not isinstance(weight, Tensor):
        raise b.refuse("is not a linear layer with constant weights")
    return _linear(b, x, weight.t(), bias)


def _batch_norm(
    b: Builder,
    x: View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    *rest: Any,
) -> tuple[View, None, None]:
    eps = rest[-1]
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    return (b.elementwise(x, "affine", {}, {"scale": scale, "shift": shift}), None, None)


def _layer_norm(
    b: Builder,
    x: View,
    normalized: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> View:
    if len(normalized) != 1 or normalized[0] != x.shape[-1] or len(x.shape) not in (1, 3):
        raise b.refuse(f"normalises over {list(normalized)}; only the channels are followed")
    width = normalized[0]
    ones = torch.ones(width, dtype=b.like.dtype, device=b.like.device)
    params = {
        "weight": ones if weight is None else weight,
        "bias": ones * 0 if bias is None else bias,
    }
    if len(x.shape) == 1:
        return b.emit("layer_norm", [b.tensor(x)], {"eps": eps}, params, x.shape)
    first = b.tensor(b.move(x, lambda i: i.movedim(-1, 1)))
    y = b.emit("layer_norm", [first], {"eps": eps}, params, first.shape)
    return b.move(y, lambda i: i.movedim(1, -1))


def _activation(kind: str) -> Callable[..., View]:
    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
        if holds_view((args, kwargs)) or any(isinstance(a, Tensor) for a in args):
            raise b.refuse("takes a tensor besides its input")
        attrs = {"kind": kind, "args": tuple(args), "kwargs": tuple(kwargs.items())}
        return b.elementwise(x, "act", attrs)

    return handler


def _elu(
    b: Builder, x: View, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> View:
    if input_scale != 1:
        raise b.refuse("scales its input")
    y: View = _activation("elu")(b, x, alpha)
    return y if scale == 1 else _MUL(b, y, scale)  # SELU scales its output


def _per_channel(b: Builder, constant: Any, shape: tuple[int, ...]) -> Tensor | None:
    """A constant operand as one value per channel of ``shape``, or None where it is not that."""
    channels = shape[0]
    value = torch.as_tensor(constant, dtype=b.like.dtype, device=b.like.device)
    if value.numel() == 1:
        return value.reshape(1).expand(channels).clone()
    try:
        full = value.expand(1, *shape)[0]
    except RuntimeError:
        return None
    per_channel = full.reshape(channels, -1)
    same = torch.equal(per_channel, per_channel[:, :1].expand_as(per_channel))
    return per_channel[:, 0].clone() if same else None


def _arithmetic(
    op: str, constant: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Callable[..., View]:
    """Addition or multiplication: with a constant a per-channel affine, else of two activations.

    ``constant`` gives (scale, shift) for the operand's value per channel.
    """

    def handler(b: Builder, x: Any, y: Any, alpha: int = 1) -> View:
        if isinstance(y, View):
            if alpha != 1:
                y = _MUL(b, y, alpha)
            if isinstance(x, View):
                return _binary(b, op, x, y)
            x, y = y, x
        elif alpha != 1:
            y = y * alpha
        if isinstance(y, Tensor) and y.dtype == torch.bool and op == "mul":
            keep = y.expand(1, *x.shape)[0].contiguous()
            return b.emit("mask", [b.tensor(x)], {}, {"keep": keep})
        base = b.nodes[x.node].shape
        order = b.elements(x).flatten()
        if is_range(order.sort().values, math.prod(base)):
            # All of the node, seen in some order (channels-last): the constant in the node's order.
            constants = torch.as_tensor(y, dtype=b.like.dtype, device=b.like.device)
            y = constants.expand(1, *x.shape).flatten()[order.argsort().to(constants.device)]
            y = y.reshape(1, *base)
        else:
            x = b.tensor(x)
            base = x.shape
        value = _per_channel(b, y, base)
        if value is None:
            raise b.refuse("combines a map with a constant that varies over positions")
        scale, shift = constant(value)
        params = {"scale": scale, "shift": shift}
        done = b.emit("affine", [View(x.node, base)], {}, params, base)
        return View(done.node, x.shape, x.index)

    return handler


def _binary(b: Builder, op: str, x: View, y: View) -> View:
    if x.index is not None and y.index is not None and x.shape == y.shape:
        same = b.nodes[x.node].shape == b.nodes[y.node].shape and torch.equal(x.index, y.index)
        if same:  # two maps seen in the same way, e.g. both channels-last
            shape = b.nodes[x.node].shape
            done = b.emit(op, [View(x.node, shape), View(y.node, shape)], shape=shape)
            return View(done.node, x.shape, x.index)
    x, y = (b.tensor(_unexpanded(v, other)) for v, other in ((x, y), (y, x)))
    broadcast = len(x.shape) == len(y.shape) and all(
        i == j or 1 in (i, j) for i, j in zip(x.shape, y.shape, strict=True)
    )
    if not broadcast:
        raise b.refuse(f"combines shapes {x.shape} and {y.shape}")
    return b.emit(op, [x, y])


def _unexpanded(view: View, other: View) -> View:
    """A gate (C, 1, 1) that was expanded to a map by hand, as it was before."""
    index = view.index
    if other.index is not None or index is None or index.ndim != 3:
        return view
    first = index[:, :1, :1]
    if not torch.equal(index, first.expand_as(index)):
        return view
    return View(view.node, (len(index), 1, 1), first)


def _sub(b: Builder, x: Any, y: Any, alpha: int = 1) -> View:
    return _ADD(b, x, _MUL(b, y, -1.0) if isinstance(y, View) else -y, alpha)


def _div(b: Builder, x: Any, y: Any) -> View:
    if not isinstance(x, View) or isinstance(y, View):
        raise b.refuse("divides by an activation, which distillnet does not follow")
    return _MUL(b, x, 1.0 / y)


def _cat(b: Builder, tensors: list[View], dim: int = 0) -> View:
    assert b.current is not None
    if dim % b.current.meta["val"].ndim != 1:
        raise b.refuse(f"joins along dimension {dim}; only channels (1) are followed")
    if not all(isinstance(t, View) for t in tensors):
        raise b.refuse("joins an activation and a constant (a class token)")
    return b.emit("cat", [b.tensor(t) for t in tensors])


def _max_pool(
    b: Builder,
    x: View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> View:
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "ceil_mode": ceil_mode,
    }
    return b.emit("max_pool", [b.tensor(x)], attrs)


def _avg_pool(
    b: Builder,
    x: View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> View:
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor,
    }
    return b.emit("avg_pool", [b.tensor(x)], attrs)


def _adaptive_avg_pool(b: Builder, x: View, size: Any) -> View:
    size = _pair(size)
    if size == (1, 1):
        return b.emit("mean", [b.tensor(x)], {"keepdim": True})
    return b.emit("adaptive_avg_pool", [b.tensor(x)], {"output_size": size})


def _adaptive_max_pool(b: Builder, x: View, size: Any) -> tuple[View, None]:
    return (b.emit("adaptive_max_pool", [b.tensor(x)], {"output_size": _pair(size)}), None)


def _amax(b: Builder, x: View, dim: Any = (), keepdim: bool = False) -> View:
    dims = sorted(d % (len(x.shape) + 1) for d in dim)
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"takes the maximum over dimensions {dims}; only height and width are")
    attrs = {"output_size": (1, 1)}
    y = b.emit("adaptive_max_pool", [b.tensor(x)], attrs, shape=(x.shape[0], 1, 1))
    return y if keepdim else b.move(y, lambda i: i.flatten(1))


def _mean(b: Builder, x: View, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> View:
    dims = sorted(d % (len(x.shape) + 1) for d in dim or [])
    if len(x.shape) == 3 and dims == [1, 2]:  # channels-last: over H and W
        x, dims = b.move(x, lambda i: i.movedim(-1, 1)), [2, 3]
        if keepdim:
            raise b.refuse("keeps the pooled dimensions of a channels-last map")
    elif len(x.shape) == 2 and dims == [2] and not keepdim:  # of a map with its pixels in a row
        sides = b.nodes[x.node].shape[1:]
        x, dims = b.move(x, lambda i: i.reshape(*i.shape[:2], *sides)), [2, 3]
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"averages over dimensions {dims}; only height and width are followed")
    return b.emit("mean", [b.tensor(x)], {"keepdim": keepdim})


def _pad(b: Builder, x: View, pad: list[int], value: float = 0.0) -> View:
    if any(pad[2 * (len(x.shape) - 1) :]):
        raise b.refuse("pads channels")
    return b.emit("pad", [b.tensor(x)], {"pad": tuple(pad[:4]), "value": float(value)})


def _movement(name: str) -> Callable[..., View]:
    function = getattr(torch.ops.aten, name)

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
        return b.move(x, lambda index: function(index, *args, **kwargs))

    return handler


def _reshape(b: Builder, x: View, *_: Any) -> View:
    assert b.current is not None
    batch, *rest = b.current.meta["val"].shape
    if batch != b.like.shape[0]:
        raise b.refuse("merges the batch with another dimension")
    return b.move(x, lambda i: i.reshape(1, *rest))


def _expand(b: Builder, x: View, shape: list[int], **_: Any) -> View:
    return b.move(x, lambda i: i.expand(1, *shape[1:]))


def _split(name: str) -> Callable[..., list[View]]:
    function = getattr(torch.ops.aten, name)

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> list[View]:
        parts = function(b.elements(x)[None], *args, **kwargs)
        return [View(x.node, tuple(part.shape[1:]), part[0]) for part in parts]

    return handler


def _identity(b: Builder, x: View, *_: Any, **__: Any) -> View:
    return x


_ADD = _arithmetic("add", lambda value: (torch.ones_like(value), value))
_MUL = _arithmetic("mul", lambda value: (value, torch.zeros_like(value)))


def _softmax(b: Builder, x: View, *_: Any, **__: Any) -> View:
    raise b.refuse("turns scores into shares; return the scores before it, which rank alike")


TABLE: dict[str, Callable[..., Any]] = {
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "conv2d": _conv,
    "convolution": _convolution,
    "linear": _linear,
    "addmm": _addmm,
    "mm": lambda b, x, weight: _linear(b, x, weight.t() if isinstance(weight, Tensor) else weight),
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "native_layer_norm": lambda b, *args: (_layer_norm(b, *args), None, None),
    "relu": _activation("relu"),
    "hardtanh": _activation("hardtanh"),
    "relu6": lambda b, x: _activation("hardtanh")(b, x, 0.0, 6.0),
    "hardswish": _activation("hardswish"),
    "hardsigmoid": _activation("hardsigmoid"),
    "silu": _activation("silu"),
    "sigmoid": _activation("sigmoid"),
    "gelu": _activation("gelu"),
    "tanh": _activation("tanh"),
    "elu": _elu,
    "leaky_relu": _activation("leaky_relu"),
    "mish": _activation("mish"),
    "softplus": _activation("softplus"),
    "clamp": _activation("clamp"),
    "abs": _activation("abs"),
    "add": _ADD,
    "sub": _sub,
    "mul": _MUL,
    "div": _div,
    "cat": _cat,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": lambda b, *args: (_max_pool(b, *args), None),
    "avg_pool2d": _avg_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "amax": _amax,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "constant_pad_nd": _pad,
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "expand": _expand,
    "permute": _movement("permute"),
    "transpose": _movement("transpose"),
    "unsqueeze": _movement("unsqueeze"),
    "squeeze": lambda b, x, *_: _reshape(b, x),  # without a dimension it would take the batch's
    "select": _movement("select"),
    "slice": _movement("slice"),
    "flip": _movement("flip"),
    "index": _movement("index"),
    "index_select": _movement("index_select"),
    "split": _split("split"),
    "split_with_sizes": _split("split_with_sizes"),
    "clone": _identity,
    "alias": _identity,
    "detach": _identity,
    "dropout": _identity,
    "contiguous": _identity,
}
