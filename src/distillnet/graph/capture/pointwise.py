"""Activations and arithmetic as nodes: what works on each neuron by itself.

A handler takes the builder and the operator's arguments; ``aten`` says which operator is whose.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distillnet.graph.capture.builder import Builder, View, holds_view, is_range

__all__ = [
    "activation",
    "add",
    "celu",
    "div",
    "elu",
    "mul",
    "neg",
    "power",
    "prelu",
    "softmax",
    "sub",
]


def activation(kind: str) -> Callable[..., View]:
    """The handler of an activation ``kind``, a function of one tensor and constants."""

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
        if holds_view((args, kwargs)) or any(isinstance(a, Tensor) for a in args):
            raise b.refuse("takes a tensor besides its input")
        attrs = {"kind": kind, "args": tuple(args), "kwargs": tuple(kwargs.items())}
        return b.elementwise(x, "act", attrs)

    return handler


def elu(
    b: Builder, x: View, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> View:
    """ELU and SELU."""
    if input_scale != 1:
        raise b.refuse("scales its input")
    y: View = activation("elu")(b, x, alpha)
    return y if scale == 1 else mul(b, y, scale)  # SELU scales its output


def celu(b: Builder, x: View, alpha: float = 1.0) -> View:
    """ELU of the input over alpha, times alpha."""
    if alpha == 1:
        return elu(b, x)
    return mul(b, elu(b, mul(b, x, 1 / alpha)), alpha)


def _arithmetic(
    op: str, constant: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Callable[..., View]:
    """Addition or multiplication: with a constant a per-channel affine, else of two activations.

    ``constant`` gives (scale, shift) for the operand's value per channel.
    """

    def handler(b: Builder, x: Any, y: Any, alpha: int = 1) -> View:
        """Two activations, or an activation and a constant per channel, either way round."""
        if isinstance(y, View):
            if alpha != 1:
                y = mul(b, y, alpha)
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


def _binary(b: Builder, op: str, x: View, y: View) -> View:
    if len(x.shape) == len(y.shape) == 4 and x.shape[:2] == y.shape[:2]:
        # Parts of the channels seen side by side: (parts, C, H, W).
        parts = x.shape[0]
        done = _binary(b, op, *(b.move(v, lambda i: i.flatten(1, 2)) for v in (x, y)))
        return b.move(done, lambda i: i.unflatten(1, (parts, -1)))
    x, y = (_own_node(b, v) for v in (x, y))
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
    shape = tuple(max(pair) for pair in zip(x.shape, y.shape, strict=True))
    return b.emit(op, [x, y], shape=shape)


def _own_node(b: Builder, view: View) -> View:
    """A part of a map with its channels last, as a node of its own."""
    if (
        view.index is None
        or len(view.shape) != 3
        or view.index.numel() != view.index.unique().numel()
    ):
        return view
    if view.index.numel() == math.prod(b.nodes[view.node].shape):
        return view
    return b.settled(view)


def _unexpanded(view: View, other: View) -> View:
    """A gate (C, 1, 1) that was expanded to a map by hand, as it was before."""
    index = view.index
    if other.index is not None or index is None or index.ndim != 3:
        return view
    first = index[:, :1, :1]
    if not torch.equal(index, first.expand_as(index)):
        return view
    return View(view.node, (len(index), 1, 1), first)


add = _arithmetic("add", lambda value: (torch.ones_like(value), value))
mul = _arithmetic("mul", lambda value: (value, torch.zeros_like(value)))


def sub(b: Builder, x: Any, y: Any, alpha: int = 1) -> View:
    """A difference of two activations, or of an activation and a constant."""
    return add(b, x, mul(b, y, -1.0) if isinstance(y, View) else -y, alpha)


def neg(b: Builder, x: View) -> View:
    """The negative of an activation."""
    return mul(b, x, -1.0)


def power(b: Builder, x: View, exponent: float) -> View:
    """The square of an activation; no other power."""
    if exponent != 2:
        raise b.refuse(f"takes an activation to the power of {exponent}; only squares are followed")
    return mul(b, x, x)


def div(b: Builder, x: Any, y: Any) -> View:
    """An activation over a constant."""
    if not isinstance(x, View) or isinstance(y, View):
        raise b.refuse("divides by an activation, which distillnet does not follow")
    return mul(b, x, 1.0 / y)


def prelu(b: Builder, x: View, weight: Tensor) -> View:
    """What is below zero, times a weight: relu(x) - weight * relu(-x)."""
    weight = weight.reshape(-1, *[1] * (len(x.shape) - 1))
    below = activation("relu")(b, mul(b, x, -1.0))
    return add(b, activation("relu")(b, x), mul(b, below, -weight))


def softmax(b: Builder, x: View, dim: int, *_: Any, **__: Any) -> View:
    """Of two alternatives, which share it out by a sigmoid of their difference; else refused."""
    if len(x.shape) == 1:
        raise b.refuse("turns scores into shares; return the scores before it, which rank alike")
    at = dim % (len(x.shape) + 1)
    if x.shape[at - 1] != 2:
        raise b.refuse(f"shares out among {x.shape[at - 1]}; only gates of two are followed")
    one, two = (
        b.tensor(b.move(b.move(x, partial(torch.select, dim=at, index=k)), lambda i: i.flatten(1)))
        for k in (0, 1)
    )
    difference = sub(b, one, two)
    shares = [activation("sigmoid")(b, v) for v in (difference, mul(b, difference, -1.0))]
    count = one.shape[0]
    both = b.emit("cat", shares, shape=(2 * count,))
    places = torch.arange(count).reshape([n for d, n in enumerate(x.shape, 1) if d != at])
    return View(both.node, x.shape, torch.stack([places, places + count], at - 1))
