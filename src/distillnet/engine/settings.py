"""What kernels are told of a node: PyTorch's attributes in the terms of the C."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.errors import UnsupportedError
from distillnet.graph.operators import Node, clamp_of

__all__ = ["activation_settings", "channel_conv_bands", "lrn_settings", "pool_settings"]

_MOST_REACH = 32  # of a local response normalisation, to either side; lrn.c has the same

_ACTIVATION_KINDS = {
    "elu": "ELU", "leaky_relu": "LEAKY_RELU", "hardswish": "HARDSWISH",
    "hardsigmoid": "HARDSIGMOID", "silu": "SILU", "sigmoid": "SIGMOID", "tanh": "TANH",
    "mish": "MISH", "softplus": "SOFTPLUS", "abs": "ABS",
}  # fmt: skip


def activation_settings(node: Node) -> dict[str, Any]:
    """The kind of an activation and its constants; UnsupportedError where there is no kernel."""
    bounds = clamp_of(node)
    kind, args = node.attrs["kind"], [*node.attrs["args"]]
    named = dict(node.attrs["kwargs"])
    a = b = c = 0.0
    if bounds is not None:
        symbol, a, b = "CLAMP", *bounds
    elif kind == "gelu":
        exact = named.get("approximate", "none") == "none"
        symbol = "GELU" if exact else "GELU_TANH"
    elif kind in _ACTIVATION_KINDS:
        symbol = _ACTIVATION_KINDS[kind]
        if kind == "elu":
            a, b, c = (*args, 1.0, 1.0, 1.0)[:3] if len(args) != 1 else (args[0], 1.0, 1.0)
            a = named.get("alpha", a)
        elif kind == "leaky_relu":
            a = named.get("negative_slope", args[0] if args else 0.01)
        elif kind == "softplus":
            a, b = (*args, *(1.0, 20.0)[len(args) :])[:2]
            a, b = named.get("beta", a), named.get("threshold", b)
    else:
        raise UnsupportedError(
            f"the C engine has no kernel for the activation {kind!r} of {node.name!r}; "
            f"expected a clamp or one of {', '.join(_ACTIVATION_KINDS)}. Use --format onnx"
        )
    return {"kind": symbol, "a": float(a), "b": float(b), "c": float(c)}


def pool_settings(node: Node) -> dict[str, Any]:
    """The windows of a maximum or average pooling."""
    a = node.attrs
    return {
        "kernel": tuple(a["kernel_size"]),
        "stride": tuple(a["stride"]),
        "padding": tuple(a["padding"]),
        "dilation": tuple(a.get("dilation", (1, 1))),
        "count_pad": bool(a.get("count_include_pad", True)),
        "divisor": int(a.get("divisor_override") or 0),
    }


def lrn_settings(
    node: Node, here: NDArray[np.integer]
) -> tuple[dict[str, Any], NDArray[np.floating]]:
    """A local response normalisation, and which channels of each window count, (size, C).

    Args:
        here: (C,), where the channels were before others were cut.

    Raises:
        UnsupportedError: windows that are too wide, or channels in another order.
    """
    a = node.attrs
    before = a["size"] // 2
    after = a["size"] - 1 - before
    if before > _MOST_REACH or not (np.diff(here) > 0).all():
        raise UnsupportedError(
            f"the C engine cannot normalise over {a['size']} channels in {node.name!r}; "
            f"expected at most {2 * _MOST_REACH + 1}, in their order. Use --format onnx"
        )
    bands = _bands(np.ones(a["size"]), here)
    settings = {
        "before": before,
        "after": after,
        "k": float(a["k"]),
        "share": a["alpha"] / a["size"],
        "beta": float(a["beta"]),
    }
    return settings, bands


def channel_conv_bands(
    node: Node, kernel: NDArray[np.floating], here: NDArray[np.integer]
) -> NDArray[np.floating]:
    """What each neighbour counts in a convolution over channels, (size, C); raises as for LRN."""
    if not (np.diff(here) > 0).all():
        raise UnsupportedError(
            f"the C engine cannot follow the order of the channels in {node.name!r}. "
            "Use --format onnx"
        )
    return _bands(kernel, here)


def _bands(window: NDArray[np.floating], here: NDArray[np.integer]) -> NDArray[np.floating]:
    """The part of a window over the original channels that each neighbour of those left has.

    As channels stay in their order, those of a window are no further apart than they were.
    """
    channels, size = len(here), len(window)
    before, after = size // 2, size - 1 - size // 2
    bands = np.zeros((size, channels))
    for d in range(-before, after + 1):
        c = np.arange(max(0, -d), min(channels, channels - d))
        distance = here[c + d] - here[c]
        inside = (distance >= -before) & (distance <= after)
        bands[d + before, c] = np.where(inside, window[np.clip(distance + before, 0, size - 1)], 0)
    return bands
