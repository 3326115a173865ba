"""The operators that a programme may call, and the limits of their arguments.

The set is closed, and it is the one that ``distillnet.graph.capture`` follows: its operators as
``torch.export`` writes them, and what those are made of. All others are refused by name: some of
PyTorch's public operators read and write where their arguments point, without a check
(``max_pool2d_with_indices_backward``, ``as_strided``).

The operators here check what they are given themselves; what is checked before is what would cost
time or memory out of proportion: see ``check_arguments``, and ``sizes`` for the tensors they make.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from distillnet.models.programs.archive import Refused

__all__ = [
    "FACTORIES",
    "INDEXED",
    "MAX_PARTS",
    "SCALAR",
    "SPLITS",
    "check_arguments",
    "function_of",
]

# Overloads by name; "NAME_" is the same in place.
_OVERLOADS: dict[str, tuple[str, ...]] = {
    # layers
    "conv1d": ("default", "padding"),
    "conv2d": ("default", "padding"),
    "convolution": ("default",),
    "linear": ("default",),
    "addmm": ("default",),
    "mm": ("default",),
    "matmul": ("default",),
    "batch_norm": ("default",),
    "_native_batch_norm_legit_no_training": ("default",),
    "layer_norm": ("default",),
    "native_layer_norm": ("default",),
    "group_norm": ("default",),
    "native_group_norm": ("default",),
    "instance_norm": ("default",),
    # pooling
    "max_pool2d": ("default",),
    "max_pool2d_with_indices": ("default",),
    "avg_pool2d": ("default",),
    "avg_pool3d": ("default",),
    "adaptive_avg_pool2d": ("default",),
    "_adaptive_avg_pool2d": ("default",),
    "adaptive_max_pool2d": ("default",),
    "mean": ("dim",),
    "sum": ("dim_IntList",),
    "amax": ("default",),
    # each number by itself
    "relu": ("default",),
    "relu_": ("default",),
    "relu6": ("default",),
    "relu6_": ("default",),
    "hardtanh": ("default",),
    "hardtanh_": ("default",),
    "hardswish": ("default",),
    "hardswish_": ("default",),
    "hardsigmoid": ("default",),
    "hardsigmoid_": ("default",),
    "silu": ("default",),
    "silu_": ("default",),
    "sigmoid": ("default",),
    "sigmoid_": ("default",),
    "gelu": ("default",),
    "gelu_": ("default",),
    "tanh": ("default",),
    "tanh_": ("default",),
    "elu": ("default",),
    "elu_": ("default",),
    "selu": ("default",),
    "selu_": ("default",),
    "celu": ("default",),
    "celu_": ("default",),
    "prelu": ("default",),
    "_prelu_kernel": ("default",),
    "leaky_relu": ("default",),
    "leaky_relu_": ("default",),
    "mish": ("default",),
    "mish_": ("default",),
    "softplus": ("default",),
    "clamp": ("default",),
    "clamp_": ("default",),
    "clamp_min": ("default",),
    "clamp_min_": ("default",),
    "clamp_max": ("default",),
    "clamp_max_": ("default",),
    "abs": ("default",),
    "abs_": ("default",),
    "add": ("Tensor", "Scalar"),
    "add_": ("Tensor", "Scalar"),
    "sub": ("Tensor", "Scalar"),
    "sub_": ("Tensor", "Scalar"),
    "rsub": ("Tensor", "Scalar"),
    "mul": ("Tensor", "Scalar"),
    "mul_": ("Tensor", "Scalar"),
    "div": ("Tensor", "Scalar"),
    "div_": ("Tensor", "Scalar"),
    "neg": ("default",),
    "pow": ("Tensor_Scalar",),
    "square": ("default",),
    "rsqrt": ("default",),
    "sqrt": ("default",),
    "eq": ("Tensor", "Scalar"),
    "softmax": ("int",),
    "_softmax": ("default",),
    "log_softmax": ("int",),
    "_log_softmax": ("default",),
    # where numbers stand
    "cat": ("default",),
    "stack": ("default",),
    "pad": ("default",),
    "reflection_pad2d": ("default",),
    "replication_pad2d": ("default",),
    "upsample_nearest2d": ("default", "vec"),
    "_upsample_nearest_exact2d": ("default", "vec"),
    "upsample_bilinear2d": ("default", "vec"),
    "pixel_unshuffle": ("default",),
    "roll": ("default",),
    "constant_pad_nd": ("default",),
    "view": ("default",),
    "_unsafe_view": ("default",),
    "reshape": ("default",),
    "view_as": ("default",),
    "reshape_as": ("default",),
    "flatten": ("using_ints",),
    "unflatten": ("int",),
    "expand": ("default",),
    "expand_as": ("default",),
    "permute": ("default",),
    "transpose": ("int",),
    "swapaxes": ("default",),
    "movedim": ("int", "intlist"),
    "t": ("default",),
    "unsqueeze": ("default",),
    "squeeze": ("default", "dim", "dims"),
    "select": ("int",),
    "slice": ("Tensor",),
    "narrow": ("default",),
    "flip": ("default",),
    "index": ("Tensor",),
    "_unsafe_index": ("Tensor",),
    "index_select": ("default",),
    "split": ("Tensor", "sizes"),
    "split_with_sizes": ("default",),
    "chunk": ("default",),
    "unbind": ("int",),
    "channel_shuffle": ("default",),
    # nothing, in inference
    "clone": ("default",),
    "alias": ("default",),
    "detach": ("default",),
    "detach_": ("default",),
    "contiguous": ("default",),
    "lift_fresh_copy": ("default",),
    "dropout": ("default",),
    "dropout_": ("default",),
    "feature_dropout": ("default",),
    "feature_dropout_": ("default",),
    "alpha_dropout": ("default",),
    "to": ("dtype", "dtype_layout", "device"),
    "_to_copy": ("default",),
    "type_as": ("default",),
    # constants
    "arange": ("default", "start", "start_step"),
    "full": ("default",),
    "zeros": ("default",),
    "ones": ("default",),
    "new_full": ("default",),
    "new_zeros": ("default",),
    "new_ones": ("default",),
    "zeros_like": ("default",),
    "ones_like": ("default",),
    "full_like": ("default",),
    "scalar_tensor": ("default",),
    "sym_size": ("int",),
}
# Sizes are worked out with these.
SCALAR: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "floordiv", "mod", "neg", "getitem"),
        *("eq", "ne", "lt", "le", "gt", "ge"),
    )
}
# Which read where a tensor of numbers points; those that give many tensors.
INDEXED = frozenset({"index", "index_select", "_unsafe_index"})
SPLITS = frozenset({"split", "split_with_sizes", "chunk", "unbind"})
MAX_PARTS = 4096
# Which make tensors of nothing, and so have to be told where.
FACTORIES = frozenset({"arange", "full", "zeros", "ones", "scalar_tensor"})

# Detached constants are fresh copies; in place it would keep a programme from a second export. A
# programme runs where its weights are, wherever it was exported.
_INSTEAD = {"detach_.default": "detach.default", "to.device": "to.dtype"}
_PREFIX = "torch.ops.aten."
_FROM_1 = frozenset(
    {"chunks", "dilation", "divisor_override", "downscale_factor", "groups", "kernel_size",
     "num_groups", "output_size", "split_size", "step", "stride"}
)  # fmt: skip
_FROM_0 = frozenset({"padding", "output_padding"})
_SCALES = frozenset({"scale_factors", "scales_h", "scales_w"})
_MAX_GEOMETRY = 2**16


def function_of(target: object) -> Callable[..., Any]:
    """What a target of a call stands for; Refused for all that is not in the set."""
    if isinstance(target, str) and target in SCALAR:
        return SCALAR[target]
    if isinstance(target, str) and target.startswith(_PREFIX):
        short = target.removeprefix(_PREFIX)
        name, _, overload = _INSTEAD.get(short, short).partition(".")
        if overload in _OVERLOADS.get(name, ()):
            function: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
            return function
    raise Refused(
        f"it calls {str(target)[:80]!r}, which is not among the operators that distillnet follows"
        " (see ARCHITECTURE.md)"
    )


def check_arguments(target: str, arguments: Mapping[str, Any]) -> None:
    """Refused where a window, stride, padding or number of parts is beyond all use."""
    for name, value in arguments.items():
        values = value if isinstance(value, list | tuple) else [value]
        numbers = [v for v in values if type(v) is int]
        if name in _FROM_1 and not all(1 <= v <= _MAX_GEOMETRY for v in numbers):
            raise _beyond(target, name, value, 1)
        if name in _FROM_0 and not all(0 <= v <= _MAX_GEOMETRY for v in numbers):
            raise _beyond(target, name, value, 0)
        # Positions are made of them without a check; of NaN and infinity, any.
        given = [v for v in values if v is not None]
        if name in _SCALES and not all(1 / _MAX_GEOMETRY <= v <= _MAX_GEOMETRY for v in given):
            raise _beyond(target, name, value, 1 / _MAX_GEOMETRY)
        if name == "pad" and not all(abs(v) <= _MAX_GEOMETRY for v in numbers):
            raise _beyond(target, name, value, -_MAX_GEOMETRY)
        # Without running statistics it is how weights are standardised.
        standardises = arguments.get("running_mean", 0) is None
        if name in ("train", "training") and value and not standardises:
            raise Refused(
                f"its operator {target!r} is in training mode; call model.eval() before the export"
            )
        if name == "transposed" and value:
            raise Refused(f"its operator {target!r} is a transposed convolution")


def _beyond(target: str, name: str, value: object, least: float) -> Refused:
    return Refused(
        f"its operator {target!r} has the {name} {str(value)[:60]}; expected {least:g} to"
        f" {_MAX_GEOMETRY}"
    )
