"""A table of tiny networks, one for each structure that surgery has to follow.

Each is float64 with random batch-norm statistics, takes (N, 3, 12, 12) and gives (N, 7) scores.
"""

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from network_parts import (
    CLASSES,
    SIDE,
    Colliding,
    Net,
    SharedBias,
    SharedWidths,
    arithmetic,
    chain_of,
    channel_attention,
    constants,
    conv,
    convnext_net,
    coordinate_attention,
    dense,
    flat_order,
    gate_and_bias,
    gated_channels_last,
    grouped_shuffle,
    head,
    masked_net,
    nested,
    net,
    pooled_attention,
    pools_of,
    recurrent_scores,
    residual,
    rows_and_columns,
    same_padding,
    scaling,
    scores_of_scores,
    se,
    se_linear,
    selective_kernels,
    shared,
    shared_bn,
    shuffle,
    slices,
    spatial_attention,
    split_attention,
    squeezes,
    transform_input,
    two_heads,
)

__all__ = ["ARCHITECTURES", "SIDE", "build", "captured", "randomise"]


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Float64, eval mode, weights that keep activations near one, batch norm away from identity."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point():
                continue
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                values = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
            elif name.endswith(("bias", "running_mean")):
                values = 0.3 * torch.randn(tensor.shape, generator=generator)
            else:
                values = 0.5 + torch.rand(tensor.shape, generator=generator)
            tensor.copy_(values.double())
    return module


def build(name: str) -> nn.Module:
    return randomise(ARCHITECTURES[name](), seed=sum(map(ord, name)))


@functools.cache
def captured(name: str) -> tuple[nn.Module, Graph, Channels]:
    """One for all tests of a process, which leave it as it is."""
    module = build(name)
    graph = capture(module, (SIDE, SIDE))
    return module, graph, analyse(graph)


ARCHITECTURES: Mapping[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 10), nn.ReLU(), head(10)
    ),
    "flatten to linear": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(),
        nn.Dropout(), nn.Linear(20, CLASSES),
    ),
    "flatten channels last": lambda: Net(
        flat_order, a=conv(3, 6), b=nn.Sequential(nn.Linear(96, 9), nn.ReLU(), nn.Linear(9, 7))
    ),
    "convolution as classifier": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "batch norm": lambda: nn.Sequential(
        conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9), nn.BatchNorm1d(9),
        nn.ReLU(), nn.Linear(9, CLASSES), nn.BatchNorm1d(CLASSES, affine=False),
    ),
    "batch norm, two readers": lambda: net(
        lambda m, x: F.relu(m.bn(y := m.a(x))) + m.b(y), 8, a=conv(3, 8), b=conv(8, 8),
        bn=nn.BatchNorm2d(8),
    ),
    "batch norm after activation": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.BatchNorm2d(8), conv(8, 6),
        nn.ReLU(), head(6),
    ),
    "pre-activation, dense": lambda: net(
        dense, 16, stem=conv(3, 8), bn1=nn.BatchNorm2d(8), a=conv(8, 4), bn2=nn.BatchNorm2d(12),
        b=conv(12, 4), bn3=nn.BatchNorm2d(16),
    ),
    "residual": lambda: net(
        residual, 10, stem=conv(3, 8), a=conv(8, 6), bn=nn.BatchNorm2d(6), b=conv(6, 8),
        short=conv(8, 10, 1), c=conv(8, 6), d=conv(6, 10),
    ),
    "residual through concat": lambda: net(
        nested, 8, stem=conv(3, 8), a=conv(8, 3), b=conv(8, 5), c=conv(11, 8, 1)
    ),
    "concat": lambda: net(
        lambda m, x: m.d(
            torch.cat([F.relu(m.a(x)), F.relu(m.b(x)), F.max_pool2d(m.c(x), 3, 1, 1)], 1)
        ),
        6, a=conv(3, 4, 1), b=conv(3, 5), c=conv(3, 3, 5), d=conv(12, 6),
    ),
    "concat with itself": lambda: net(
        lambda m, x: F.relu(m.b(torch.cat([y := F.relu(m.a(x)), y], 1) + 0.5)), 6, a=conv(3, 5),
        b=conv(10, 6),
    ),
    "depthwise": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU6(), conv(8, 8, groups=8, stride=2), nn.BatchNorm2d(8), nn.ReLU6(),
        conv(8, 6, 1), nn.ReLU(), head(6),
    ),
    "depthwise, multiplier 2": lambda: nn.Sequential(
        conv(3, 6), nn.ReLU(), conv(6, 12, groups=6), nn.ReLU(), conv(12, 6, 1), head(6)
    ),
    "depthwise on the input": lambda: nn.Sequential(
        conv(3, 6, groups=3), nn.ReLU(), conv(6, 6), nn.ReLU(), head(6)
    ),
    "grouped": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 12, groups=4), nn.ReLU(), conv(12, 6), nn.ReLU(), head(6)
    ),
    "channel shuffle": lambda: net(
        shuffle, 6, stem=conv(3, 8), a=conv(4, 4, 1), dw=conv(4, 4, groups=4),
        pw=conv(4, 4, 1), b=conv(8, 6),
    ),
    "channel shuffle, grouped": lambda: net(
        grouped_shuffle, 12, stem=conv(3, 8), a=conv(8, 8, groups=4), b=conv(8, 12, groups=4)
    ),
    "split, slice and pick": lambda: net(slices, 8, stem=conv(3, 8), a=conv(3, 4)),
    "shared": lambda: net(shared, 8, stem=conv(3, 8), a=conv(8, 8), b=conv(8, 8, 1)),
    "shared, batch norm after": lambda: net(
        shared_bn, 12, stem=conv(3, 8), a=conv(8, 6), bn1=nn.BatchNorm2d(6),
        bn2=nn.BatchNorm2d(6),
    ),
    "shared bias": SharedBias,
    "shared by different widths": SharedWidths,
    "squeeze-excite": lambda: se(nn.Sigmoid(), nn.ReLU()),
    "squeeze-excite, hard": lambda: se(nn.Hardsigmoid(), nn.SiLU()),
    "squeeze-excite, linear": lambda: se_linear(expand=False),
    "squeeze-excite, linear, expanded": lambda: se_linear(expand=True),
    "gate and bias": lambda: net(gate_and_bias, 8, a=conv(3, 8), b=nn.Linear(8, 16)),
    "spatial attention": lambda: net(
        spatial_attention, 6, a=conv(3, 8), b=conv(8, 1), c=conv(8, 6)
    ),
    "coordinate attention": lambda: net(
        coordinate_attention, 8, a=conv(3, 8), b=conv(8, 8, 1), c=conv(8, 8, 1)
    ),
    "local response norm": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.LocalResponseNorm(5, 0.1), nn.MaxPool2d(2), conv(8, 7),
        nn.ReLU(), nn.LocalResponseNorm(4, 0.2, 0.5, 2.0), head(7),
    ),
    "scores through local response norm": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 7), nn.ReLU(), nn.LocalResponseNorm(3, 0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
    "padding that a pool reads": lambda: net(
        lambda m, x: F.relu(m.b(F.avg_pool2d(F.pad(m.a(x), (0, 1, 0, 1)), 2, 2))), 6,
        a=conv(3, 8), b=conv(8, 6),
    ),
    "channels-last linear": convnext_net,
    "channels-last scale": lambda: convnext_net(scaled_last=True),
    "pools": pools_of(
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True), nn.AdaptiveAvgPool2d((2, 3)),
    ),
    "pools, padded": pools_of(
        nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AdaptiveMaxPool2d(2),
        nn.MaxPool2d(2, 1, dilation=1),
    ),
    "global mean, no keepdim": lambda: Net(
        lambda m, x: m.b(F.relu(m.a(x)).mean([2, 3])), a=conv(3, 8), b=nn.Linear(8, CLASSES)
    ),
    "squeeze and maximum": lambda: Net(
        squeezes, a=conv(3, 8), c=conv(3, 6), b=nn.Linear(6, 8), d=nn.Linear(8, CLASSES)
    ),
    "constant input normalisation": lambda: net(transform_input, 6, a=conv(3, 8), b=conv(8, 6)),
    "constants": lambda: net(constants, 8, a=conv(3, 8), b=conv(8, 8)),
    "activations": chain_of(
        nn.Hardswish(), nn.GELU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SiLU(), nn.Tanh()
    ),
    "activations, more": chain_of(
        nn.Mish(), nn.Softplus(2), nn.GELU("tanh"), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7),
        nn.Hardsigmoid(), nn.Sigmoid(), nn.SELU(),
    ),
    "in place": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.SiLU(inplace=True), conv(8, 6),
        nn.Hardswish(inplace=True), head(6),
    ),
    "padding": same_padding,
    "stride and dilation": lambda: nn.Sequential(
        conv(3, 8, 5, stride=(2, 1)), nn.ReLU(), nn.Conv2d(8, 6, (3, 1), (1, 2), (2, 1), (2, 1)),
        nn.ReLU(), nn.Conv2d(6, 6, 3, 3), nn.ReLU(), head(6),
    ),
    "names that collide": Colliding,
    "scores made of scores": lambda: Net(
        scores_of_scores, a=conv(3, 8), head=head(8), b=nn.Linear(7, 5), c=nn.Linear(5, 7)
    ),
    "scores from a shared layer": lambda: Net(
        recurrent_scores, a=conv(3, 8), head=head(8), c=nn.Linear(7, 7)
    ),
    "two heads": lambda: Net(
        two_heads, a=conv(3, 8), b=nn.Linear(8, 3), c=nn.Linear(8, 4)
    ),
    "masked before": masked_net,
    "group norm": lambda: nn.Sequential(
        conv(3, 8), nn.GroupNorm(4, 8), nn.ReLU(), conv(8, 12), nn.GroupNorm(3, 12), conv(12, 6),
        nn.ReLU(), head(6),
    ),
    "group norm, residual": lambda: net(
        residual, 8, stem=nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8)), a=conv(8, 6),
        bn=nn.GroupNorm(3, 6), b=conv(6, 8), short=nn.GroupNorm(4, 8), c=conv(8, 4), d=conv(4, 8),
    ),
    "group norm of one group": lambda: nn.Sequential(
        conv(3, 8), nn.GroupNorm(1, 8), conv(8, 6), nn.ReLU(), head(6)
    ),
    "instance norm": lambda: nn.Sequential(
        conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(), conv(8, 6),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.MaxPool2d(2),
        nn.InstanceNorm2d(6, affine=True), head(6),
    ),
    "efficient channel attention": lambda: net(
        channel_attention, 10, a=conv(3, 10), gate=nn.Conv1d(1, 1, 5, padding=2, bias=False),
        b=conv(10, 10), other=nn.Conv1d(1, 1, 3, padding=1),
    ),
    "channel and place attention": lambda: net(
        pooled_attention, 6, a=conv(3, 8), b=conv(2, 1, 7), c=conv(8, 6)
    ),
    "split attention": lambda: net(
        split_attention, 6, a=conv(3, 8), b=conv(8, 12, groups=2), down=nn.Conv2d(6, 4, 1),
        up=nn.Conv2d(4, 12, 1),
    ),
    "selective kernels": lambda: net(
        selective_kernels, 8, stem=conv(3, 8), a=conv(8, 6), b=conv(8, 6, dilation=2, padding=2),
        down=nn.Conv2d(6, 4, 1), up=nn.Conv2d(4, 12, 1), c=conv(6, 8),
    ),
    "gated, channels last": lambda: net(
        gated_channels_last, 8, stem=conv(3, 8), norm=nn.LayerNorm(8), a=nn.Linear(8, 20),
        b=nn.Linear(22, 8), c=nn.Linear(8, 12),
    ),
    "rows and columns": lambda: net(
        rows_and_columns, 10, a=conv(3, 6), b=conv(24, 6), c=conv(6, 4)
    ),
    "padding by pixels": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.ReplicationPad2d((2, 0, 1, 0)), conv(6, 6, groups=6), nn.ReLU(), head(6),
    ),
    "scaling": lambda: net(
        scaling, 8, a=conv(3, 8), b=conv(8, 6), c=conv(6, 8, 1), d=conv(8, 8)
    ),
    "activations with weights": chain_of(nn.PReLU(), nn.PReLU(8), nn.CELU(0.7), nn.CELU()),
    "arithmetic": lambda: net(arithmetic, 8, a=conv(3, 8), b=conv(8, 8)),
}  # fmt: skip
