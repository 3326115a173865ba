"""Data movement: what only moves elements becomes a view, joining and padding become nodes.

A handler takes the builder and the operator's arguments; ``aten`` says which operator is whose.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from distillnet.graph.capture.builder import Builder, View

__all__ = [
    "any_pad",
    "bilinear",
    "cat",
    "expand",
    "identity",
    "movement",
    "nearest",
    "pad",
    "reshape",
    "split",
]


def cat(b: Builder, tensors: list[View], dim: int = 0) -> View:
    """A concatenation of channels."""
    assert b.current is not None
    n_dims = b.current.meta["val"].ndim
    at = dim % n_dims
    if not all(isinstance(t, View) for t in tensors):
        raise b.refuse("joins an activation and a constant (a class token)")
    if at == 3 and n_dims == 4:  # channels last, or else there is no such rearrangement
        first = [b.tensor(b.move(t, lambda i: i.movedim(-1, 1))) for t in tensors]
        shape = (sum(t.shape[0] for t in first), *first[0].shape[1:])
        return b.move(b.emit("cat", first, shape=shape), lambda i: i.movedim(1, -1))
    if at != 1:
        raise b.refuse(f"joins along dimension {dim}; only channels (1) are followed")
    if all(len(t.shape) == 4 for t in tensors):  # maps stacked: (1, C, H, W) each
        width = tensors[0].shape[1]
        maps = [b.tensor(b.move(t, lambda i: i.flatten(1, 2))) for t in tensors]
        channels = sum(t.shape[0] for t in maps)
        done = b.emit("cat", maps, shape=(channels, *maps[0].shape[1:]))
        return b.move(done, lambda i: i.unflatten(1, (-1, width)))
    return b.emit("cat", [b.tensor(t) for t in tensors])


def pad(b: Builder, x: View, pad: list[int], value: float = 0.0) -> View:
    """Padding of height and width by a constant."""
    if any(pad[2 * (len(x.shape) - 1) :]):
        raise b.refuse("pads channels")
    return b.emit("pad", [b.tensor(x)], {"pad": tuple(pad[:4]), "value": float(value)})


def any_pad(
    b: Builder, x: View, sides: list[int], mode: str = "constant", value: Any = None
) -> View:
    """Padding by a constant, or by pixels of the map itself."""
    if mode == "constant":
        return pad(b, x, sides, value or 0.0)
    return b.move(x, lambda index: F.pad(index.double(), sides, mode).long())


def nearest(name: str) -> Callable[..., View]:
    """The handler of a scaling to the nearest pixel, a choice of rows and columns."""
    function = getattr(torch.ops.aten, name)

    def handler(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
        # Positions are exact as doubles, of which there are kernels.
        return b.move(x, lambda index: function(index.double(), *args, **kwargs).long())

    return handler


def bilinear(b: Builder, x: View, *args: Any, **kwargs: Any) -> View:
    """Of one pixel, which repeats it; else refused."""
    assert b.current is not None
    if x.shape[1:] != (1, 1):
        raise b.refuse("scales a map between its pixels; only the nearest pixel is followed")
    sides = b.current.meta["val"].shape[2:]
    return b.move(x, lambda i: i.expand(1, x.shape[0], *sides))


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
