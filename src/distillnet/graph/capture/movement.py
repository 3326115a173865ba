"""Data movement: what only moves elements becomes a view, joining and padding become nodes.

A handler takes the builder and the operator's arguments; ``aten`` says which operator is whose.
"""

from collections.abc import Callable
from typing import Any

import torch

from distillnet.graph.capture.builder import Builder, View

__all__ = ["cat", "expand", "identity", "movement", "pad", "reshape", "split"]


def cat(b: Builder, tensors: list[View], dim: int = 0) -> View:
    """A concatenation of channels."""
    assert b.current is not None
    if dim % b.current.meta["val"].ndim != 1:
        raise b.refuse(f"joins along dimension {dim}; only channels (1) are followed")
    if not all(isinstance(t, View) for t in tensors):
        raise b.refuse("joins an activation and a constant (a class token)")
    return b.emit("cat", [b.tensor(t) for t in tensors])


def pad(b: Builder, x: View, pad: list[int], value: float = 0.0) -> View:
    """Padding of height and width by a constant."""
    if any(pad[2 * (len(x.shape) - 1) :]):
        raise b.refuse("pads channels")
    return b.emit("pad", [b.tensor(x)], {"pad": tuple(pad[:4]), "value": float(value)})


def movement(name: str) -> Callable[..., View]:
    """The handler of an operator that moves elements and never looks at them."""
    function = getattr(torch.ops.aten, name)

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
        return b.move(x, lambda index: function(index, *args, **kwargs))

    return handler


def reshape(b: Builder, x: View, *_: Any) -> View:
    """A view of another shape; the batch stays."""
    assert b.current is not None
    batch, *rest = b.current.meta["val"].shape
    if batch != b.like.shape[0]:
        raise b.refuse("merges the batch with another dimension")
    return b.move(x, lambda i: i.reshape(1, *rest))


def expand(b: Builder, x: View, shape: list[int], **_: Any) -> View:
    """A view that repeats elements."""
    return b.move(x, lambda i: i.expand(1, *shape[1:]))


def split(name: str) -> Callable[..., list[View]]:
    """The handler of an operator that gives several parts, each a view."""
    function = getattr(torch.ops.aten, name)

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> list[View]:
        parts = function(b.elements(x)[None], *args, **kwargs)
        return [View(x.node, tuple(part.shape[1:]), part[0]) for part in parts]

    return handler


def identity(b: Builder, x: View, *_: Any, **__: Any) -> View:
    """The value as it is."""
    return x
