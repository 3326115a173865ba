"""What a programme's calls would make, worked out on tensors without values before any is run.

Sizes that a file declares are not believed. Each call is made once on the meta device: PyTorch
refuses what does not fit together, and here tensors are refused that are too large, or many, and
indices that lie outside of what they point into.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from distillnet.models.programs.archive import Refused
from distillnet.models.programs.operators import FACTORIES, INDEXED, MAX_PARTS, SCALAR, SPLITS
from distillnet.models.programs.schema import Call, Recipe, Ref

__all__ = ["check_sizes", "resolve"]

_BATCH = 2
# Numbers for an image: EfficientNet-B7 at 600 pixels, the largest of torchvision's, has 0.04 x 2^30
# alive at once and 1.3 x 2^30 in all.
_MAX_ALIVE = 2**27
_MAX_IN_ALL = 2**33
_MAX_MACS = 2**40
_MULTIPLYING = frozenset({"conv1d", "conv2d", "convolution", "linear", "addmm", "mm", "matmul"})
_MAX_KNOWN = 2**16  # numbers of a constant whose values are followed


def resolve(value: Any, look_up: Callable[[str], Any]) -> Any:
    """An argument with what its references stand for."""
    if isinstance(value, Ref):
        return look_up(value.name)
    if isinstance(value, list):
        return [resolve(item, look_up) for item in value]
    return value


def _refs(value: Any) -> Iterable[str]:
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _refs(item)


def _inputs(call: Call) -> list[str]:
    return [*_refs(call.args), *_refs(list(call.kwargs.values()))]


def check_sizes(recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
    """Refused where a call makes too much, or points outside of what it reads.

    Args:
        tensors: weights and constants by the names of values.

    Raises:
        RuntimeError, and others: PyTorch finds that arguments do not fit together.
    """
    check = _Check(recipe, tensors)
    with torch.no_grad():
        for i, call in enumerate(recipe.calls):
            check.make(i, call)
    scores = check.values[recipe.output]
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != _BATCH:
        found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise Refused(f"it gives {found} for {_BATCH} images instead of scores (N, classes)")


class _Check:
    """The values so far, without their numbers; a class only for what all calls share."""

    def __init__(self, recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
        shape = (_BATCH, *recipe.image_shape)
        if math.prod(shape) > _BATCH * _MAX_ALIVE:
            raise Refused(f"its input has the shape {shape}")
        self.values: dict[str, Any] = {name: t.to("meta") for name, t in tensors.items()}
        self.values[recipe.image] = torch.empty(shape, device="meta", dtype=recipe.image_type)
        # Indices are whole numbers that do not depend on the images: they are computed here.
        self.known = {name: t for name, t in tensors.items() if _is_index(t)}
        self.last_use = {name: i for i, call in enumerate(recipe.calls) for name in _inputs(call)}
        self.last_use[recipe.output] = len(recipe.calls)
        self.kept = {*self.values}
        self.fixed = {_memory(value) for value in self.values.values()}
        self.alive = self.in_all = self.macs = 0

    def make(self, i: int, call: Call) -> None:
        """Make one call, and count what it makes."""
        args = tuple(resolve(list(call.args), self.values.__getitem__))
        kwargs = {k: resolve(v, self.values.__getitem__) for k, v in call.kwargs.items()}
        name = call.target.split(".")[-2]
        if name in INDEXED:
            self._check_indices(call, args[0])
        if name in SPLITS and _parts(name, *args, **kwargs) > MAX_PARTS:
            raise Refused(f"its operator {call.target!r} makes more than {MAX_PARTS} parts")
        if name in FACTORIES:
            kwargs["device"] = "meta"
        if call.target in SCALAR and not all(isinstance(arg, int | float) for arg in args):
            raise Refused(f"its operator {call.target!r} is given what is no number")
        schema = getattr(call.function, "_schema", None)
        if schema is not None and schema.is_mutable and _memory(args[0]) in self.fixed:
            raise Refused(f"its operator {call.target!r} changes the images or the weights")
        value = call.function(*args, **kwargs)
        members = list(value) if isinstance(value, list | tuple) else [value]
        if len(members) != len(call.results):
            raise Refused(f"its operator {call.target!r} has {len(call.results)} results declared")
        if isinstance(value, list | tuple) != call.many:
            raise Refused(f"its operator {call.target!r} has results of another form declared")
        for result, member in zip(call.results, members, strict=True):
            self.values[result] = member
            self._count(call, result, member)
        self._count_macs(call, args, members[0])
        self._follow(call, members)
        for used in {*_inputs(call), *call.results}:
            if self.last_use.get(used, i) == i and used not in self.kept:
                self.alive -= _size(self.values.pop(used, None))

    def _count(self, call: Call, result: str, value: Any) -> None:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Refused("it calculates a size beyond 64 bits")
        if result in self.kept:
            raise Refused(f"two of its values have the name {result[:60]!r}")
        n = _size(value)
        self.alive, self.in_all = self.alive + n, self.in_all + n
        if self.alive > _BATCH * _MAX_ALIVE or self.in_all > _BATCH * _MAX_IN_ALL:
            raise Refused(
                f"its operator {call.target!r} makes a tensor of shape {list(value.shape)}; with"
                " all others that is more than a network of this kind has"
            )

    def _count_macs(self, call: Call, args: tuple[Any, ...], value: Any) -> None:
        factors = [a for a in args[:3] if isinstance(a, Tensor) and a.ndim >= 2]
        if call.target.split(".")[-2] in _MULTIPLYING:
            weight = factors[-1]
            self.macs += _size(value) * max(1, weight.numel() // max(1, weight.shape[0]))
        elif "pool" in call.target:
            windows = [
                a for a in args[1:2] if isinstance(a, list) and "adaptive" not in call.target
            ]
            self.macs += _size(value) * math.prod(windows[0] if windows else [1])
        if self.macs > _BATCH * _MAX_MACS:
            raise Refused(f"it needs more than {_MAX_MACS} multiplications for an image")

    def _check_indices(self, call: Call, source: Tensor) -> None:
        given = call.args[1] if isinstance(call.args[1], list) else [None, call.args[2]]
        dims = range(source.ndim) if isinstance(call.args[1], list) else [0, call.args[1]]
        for dim, ref in zip(dims, given, strict=False):
            if ref is None:
                continue
            index = self.known.get(ref.name)
            if index is None or index.dtype == torch.bool:
                raise Refused(f"its operator {call.target!r} reads at places that are not constant")
            size = source.shape[dim]
            if index.numel() and not -size <= int(index.min()) <= int(index.max()) < size:
                raise Refused(
                    f"its operator {call.target!r} reads at {int(index.min())} to"
                    f" {int(index.max())} of {size}"
                )

    def _follow(self, call: Call, members: list[Any]) -> None:
        """Compute what stays a small constant of whole numbers."""
        names = [name for name in _inputs(call) if isinstance(self.values.get(name), Tensor)]
        whole = [m for m in members if isinstance(m, Tensor)]
        if not whole or len(whole) != len(members) or not all(map(_is_index, whole)):
            return
        if not all(name in self.known for name in names):
            return

        def look_up(name: str) -> Any:
            return self.known.get(name, self.values[name])

        kwargs = {k: resolve(v, look_up) for k, v in call.kwargs.items()}
        made = call.function(*resolve(list(call.args), look_up), **kwargs)
        made = list(made) if isinstance(made, list | tuple) else [made]
        self.known |= dict(zip(call.results, made, strict=True))


def _memory(value: Tensor) -> int:
    """What tells a tensor's memory from any other's: views of one tensor share it."""
    return value.untyped_storage()._cdata


def _is_index(value: Tensor) -> bool:
    return not value.is_floating_point() and value.numel() <= _MAX_KNOWN


def _size(value: Any) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


def _parts(name: str, source: Tensor, size: Any = 1, dim: int = 0) -> int:
    """How many tensors a split makes."""
    if name == "unbind":
        return source.shape[size if source.ndim > 1 or size else 0]
    if name == "chunk" or isinstance(size, list):
        return len(size) if isinstance(size, list) else int(size)
    return -(-source.shape[dim] // int(size)) if size else MAX_PARTS + 1
