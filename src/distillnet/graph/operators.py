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
    "UNMASKING",
    "WEIGHTS",
    "WHOLE_ROLES",
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
WEIGHTS = frozenset({"weight", "bias", "scale", "shift", "kernel"})

# Operators that work on each neuron by itself, so that a layer goes on through them.
POINTWISE = frozenset({"affine", "act", "add", "mul"})

# Operators that are not pointwise and may make something of a channel that is zero, so that a
# channel has to be masked behind them as well.
UNMASKING = frozenset({"channel_conv", "group_norm"})

# Roles of parameters that a node has as a whole, not a part for each channel.
WHOLE_ROLES = frozenset({"kernel"})

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
        root = base.sqrt()
        return x / (root * root.sqrt())
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
    if node.op == "sample":
        return {role: torch.tensor(node.attrs[role]) for role in ("rows", "columns")}
    if node.op in ("lrn", "channel_conv") and "positions" not in params:
        return {"positions": torch.arange(node.attrs["channels"])}
    return {}


def _sample(node: Node, p: Params, x: Tensor) -> Tensor:
    """Rows and columns of a map in another order, fewer or repeated."""
    for dim, role in ((2, "rows"), (3, "columns")):
        chosen: tuple[int, ...] = node.attrs[role]
        if chosen != tuple(range(x.shape[dim])):
            places = p[role] if role in p else torch.tensor(chosen, device=x.device)
            x = x.index_select(dim, places)
    return x


def _channel_conv(node: Node, p: Params, x: Tensor) -> Tensor:
    """A convolution over neighbouring channels of features (N, C), as an efficient gate has it.

    Its windows lie over the original channels, as those of ``_lrn`` do.
    """
    kernel, total = p["kernel"], node.attrs["channels"]
    here = p["positions"] if "positions" in p else torch.arange(total, device=x.device)
    offset = here[None, :] - here[:, None] + len(kernel) // 2
    near = offset.clamp(0, len(kernel) - 1)
    return F.linear(x, kernel[near] * (near == offset))


def _group_norm(node: Node, p: Params, x: Tensor) -> Tensor:
    a = node.attrs
    return F.group_norm(x, a["groups"], p["weight"], p["bias"], a["eps"])


def _channel_max(node: Node, p: Params, x: Tensor) -> Tensor:
    """The largest of all channels; those that are gone count as zeros, as in the mask."""
    y = x.amax(1, keepdim=True)
    return y.clamp_min(0) if x.shape[1] < node.attrs["channels"] else y


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
    "sample": _sample,
    "max_pool": _pool(F.max_pool2d),
    "avg_pool": _pool(F.avg_pool2d),
    "adaptive_avg_pool": _pool(F.adaptive_avg_pool2d),
    "adaptive_max_pool": _pool(F.adaptive_max_pool2d),
    "mean": _mean,
    "flatten": lambda node, p, x: x.flatten(1),
    "unflatten": lambda node, p, x: x[:, :, None, None],
    "lrn": _lrn,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "channel_conv": _channel_conv,
    "channel_max": _channel_max,
    "mask": _mask,
    "pad": _pad,
}
