"""The operator table: for each ATen operator, how it becomes nodes of the graph.

A handler takes the builder and the operator's arguments, activations as views and everything else
as it is, and returns a view. It refuses the forms that it does not follow.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from distillnet.graph.capture.layers import (
    adaptive_avg_pool,
    adaptive_max_pool,
    addmm,
    amax,
    avg_pool,
    batch_norm,
    conv,
    convolution,
    layer_norm,
    linear,
    max_pool,
    mean,
)
from distillnet.graph.capture.movement import cat, expand, identity, movement, pad, reshape, split
from distillnet.graph.capture.pointwise import activation, add, div, elu, mul, softmax, sub

__all__ = ["TABLE"]

TABLE: dict[str, Callable[..., Any]] = {
    "_softmax": softmax,
    "_log_softmax": softmax,
    "softmax": softmax,
    "log_softmax": softmax,
    "conv2d": conv,
    "convolution": convolution,
    "linear": linear,
    "addmm": addmm,
    "mm": lambda b, x, weight: linear(b, x, weight.t() if isinstance(weight, Tensor) else weight),
    "_native_batch_norm_legit_no_training": batch_norm,
    "layer_norm": layer_norm,
    "native_layer_norm": lambda b, *args: (layer_norm(b, *args), None, None),
    "relu": activation("relu"),
    "hardtanh": activation("hardtanh"),
    "relu6": lambda b, x: activation("hardtanh")(b, x, 0.0, 6.0),
    "hardswish": activation("hardswish"),
    "hardsigmoid": activation("hardsigmoid"),
    "silu": activation("silu"),
    "sigmoid": activation("sigmoid"),
    "gelu": activation("gelu"),
    "tanh": activation("tanh"),
    "elu": elu,
    "leaky_relu": activation("leaky_relu"),
    "mish": activation("mish"),
    "softplus": activation("softplus"),
    "clamp": activation("clamp"),
    "abs": activation("abs"),
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "cat": cat,
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": lambda b, *args: (max_pool(b, *args), None),
    "avg_pool2d": avg_pool,
    "adaptive_max_pool2d": adaptive_max_pool,
    "amax": amax,
    "_adaptive_avg_pool2d": adaptive_avg_pool,
    "adaptive_avg_pool2d": adaptive_avg_pool,
    "mean": mean,
    "constant_pad_nd": pad,
    "view": reshape,
    "_unsafe_view": reshape,
    "reshape": reshape,
    "expand": expand,
    "permute": movement("permute"),
    "transpose": movement("transpose"),
    "unsqueeze": movement("unsqueeze"),
    "squeeze": lambda b, x, *_: reshape(b, x),  # without a dimension it would take the batch's
    "select": movement("select"),
    "slice": movement("slice"),
    "flip": movement("flip"),
    "index": movement("index"),
    "index_select": movement("index_select"),
    "split": split("split"),
    "split_with_sizes": split("split_with_sizes"),
    "clone": identity,
    "alias": identity,
    "detach": identity,
    "dropout": identity,
    "contiguous": identity,
}
