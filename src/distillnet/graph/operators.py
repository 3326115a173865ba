"""What each operator of the graph computes: one small function per operator.

The set is closed: capture translates a network into exactly these operators or refuses it. To add
one, see ARCHITECTURE.md.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "APPLY",
    "LAYERS",
    "POINTWISE",
    "WEIGHTS",
    "Node",
    "clamp_of",
    "constants_of",
]


@dataclass(frozen=True)
class Node:
    """One operation: ``inputs`` name nodes, ``params`` map a role to a name in Graph.params."""

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]  # (C, H, W) or (F,), without the batch
    attrs: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)


Params = Mapping[str, Tensor]

# Operators with filters: what costs MACs, and what makes new channels.
LAYERS = frozenset({"conv", "linear"})

# Roles of what training may change; all others say where, not how much.
WEIGHTS = frozenset({"weight", "bias", "scale", "shift"})

# Operators that work on each neuron by itself, so that a layer goes on through them.
POINTWISE = frozenset({"affine", "act", "add", "mul"})

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "softplus": F.softplus,
    "clamp": torch.clamp,
    "abs": torch.abs,
}


def clamp_of(node: Node) -> tuple[float, float] | None:
    """The bounds of an activation that is a clamp; None of any other node."""
    if node.op != "act":
        return None
    kind, args = node.attrs["kind"], list(node.attrs["args"])
    named = dict(node.attrs["kwargs"])
    if kind == "relu":
        return 0.0, math.inf
    if kind == "hardtanh":
        lo, hi = (*args, -1.0, 1.0)[:2] if not args else (*args, 1.0)[:2]
        return float(named.get("min_val", lo)), float(named.get("max_val", hi))
    if kind == "clamp":
        lo, hi = (*args, None, None)[:2]
        lo, hi = named.get("min", lo), named.get("max", hi)
        return -math.inf if lo is None else float(lo), math.inf if hi is None else float(hi)
    return None


def _conv(node: Node, p: Params, x: Tensor) -> Tensor:
    a = node.attrs
    return F.conv2d(
        x, p["weight"], p.get("bias"), a["stride"], a["padding"], a["dilation"], a["groups"]
    )


def _linear(node: Node, p: Params, x: Tensor) -> Tensor:
    return F.linear(x, p["weight"], p.get("bias"))


def _affine(node: Node, p: Params, x: Tensor) -> Tensor:
    """y = x * scale + shift per channel; both (C,)."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * p["scale"].reshape(shape) + p["shift"].reshape(shape)


def _act(node: Node, p: Params, x: Tensor) -> Tensor:
    return ACTIVATIONS[node.attrs["kind"]](x, *node.attrs["args"], **dict(node.attrs["kwargs"]))


def _pool(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply(node: Node, p: Params, x: Tensor) -> Tensor:
        return function(x, **node.attrs)

    return apply


def _lrn(node: Node, p: Params, x: Tensor) -> Tensor:
    """Local response normalisation across channels.

    Its windows lie over the original channels. After surgery ``positions`` (C,) tells where the
    channels that are left used to be; those that are gone count as zeros, as in the mask.
    """
    a = node.attrs
    here = p["positions"] if "positions" in p else torch.arange(a["channels"], device=x.device)
    # A window is a 1 x 1 convolution of the squares with a band of equal weights: up to twice as
    # fast as slices added up, several times as fast as F.local_response_norm's 3-D pooling, and
    # without the channels that are gone.
    offset = here[None, :] - here[:, None] + a["size"] // 2
    inside = offset.clamp(0, a["size"] - 1) == offset
    # Not inside.to(x.dtype), of which an exported programme remembers on which device it was.
    band = x.new_full(offset.shape, a["alpha"] / a["size"]) * inside
    base = F.conv2d(x * x, band[:, :, None, None], x.new_full((len(here),), a["k"]))
    if a["beta"] == 0.75:  # what every published network uses; roots are faster than powers
        root = base.rsqrt()
        return x * (root * root.sqrt())
    return x * base.pow(-a["beta"])


def _layer_norm(node: Node, p: Params, x: Tensor) -> Tensor:
    """Normalise over the channels at each position, as ConvNeXt does."""
    y_nhwc = F.layer_norm(
        x.movedim(1, -1), (x.shape[1],), p["weight"], p["bias"], node.attrs["eps"]
    )
    return y_nhwc.movedim(-1, 1)


def _gather(node: Node, p: Params, x: Tensor) -> Tensor:
    """Channels in another order or fewer: slice, chunk, split and channel shuffle.

    Where ``constants_of`` has made a tensor of the index, it is that.
    """
    index: tuple[int, ...] = node.attrs["index"]
    if index == tuple(range(index[0], index[0] + len(index))):
        return x.narrow(1, index[0], len(index))
    places = p["index"] if "index" in p else torch.tensor(index, device=x.device)
    return x.index_select(1, places)


def constants_of(node: Node, params: Params) -> dict[str, Tensor]:
    """What a node would make anew in each call, by role: constants that go with the weights."""
    if node.op == "gather":
        return {"index": torch.tensor(node.attrs["index"])}
    if node.op == "lrn" and "positions" not in params:
        return {"positions": torch.arange(node.attrs["channels"])}
    return {}


def _mean(node: Node, p: Params, x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=node.attrs["keepdim"])


def _mask(node: Node, p: Params, x: Tensor) -> Tensor:
    """Partial removal: zero where ``keep`` (C, H, W) is False."""
    return x * p["keep"]


def _pad(node: Node, p: Params, x: Tensor) -> Tensor:
    return F.pad(x, node.attrs["pad"], value=node.attrs["value"])


APPLY: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "linear": _linear,
    "affine": _affine,
    "act": _act,
    "add": lambda node, p, x, y: x + y,
    "mul": lambda node, p, x, y: x * y,
    "cat": lambda node, p, *xs: torch.cat(xs, 1),
    "gather": _gather,
    "max_pool": _pool(F.max_pool2d),
    "avg_pool": _pool(F.avg_pool2d),
    "adaptive_avg_pool": _pool(F.adaptive_avg_pool2d),
    "adaptive_max_pool": _pool(F.adaptive_max_pool2d),
    "mean": _mean,
    "flatten": lambda node, p, x: x.flatten(1),
    "unflatten": lambda node, p, x: x[:, :, None, None],
    "lrn": _lrn,
    "layer_norm": _layer_norm,
    "mask": _mask,
    "pad": _pad,
}
