"""A table of tiny networks, one for each structure that surgery has to follow.

Each is float64 with random batch-norm statistics, takes (N, 3, 12, 12) and gives (N, 7) scores.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "SIDE", "build", "randomise"]

SIDE = 12
CLASSES = 7


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


class _Net(nn.Module):
    """The parts as submodules ``a``, ``b``, ..., and a function of this module and the input."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def _net(function: Callable[..., Tensor], channels: int, **parts: nn.Module) -> nn.Module:
    """``function`` gives a map of ``channels``; a pooled linear head follows."""
    return nn.Sequential(_Net(function, **parts), _head(channels))


def _conv(c: int, m: int, k: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(c, m, k, padding=options.pop("padding", k // 2), **options)  # type: ignore


def _chain_of(*activations: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers: list[nn.Module] = [_conv(3, 8)]
        for activation in activations:
            layers += [activation, _conv(8, 8)]
        return nn.Sequential(*layers, _head(8))

    return make


def _pools_of(*pools: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers: list[nn.Module] = [_conv(3, 6), nn.ReLU()]
        for pool in pools:
            layers += [pool, _conv(6, 6), nn.ReLU()]
        return nn.Sequential(*layers, _head(6))

    return make


def _se(gate: nn.Module, squeeze: nn.Module, **parts: nn.Module) -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        g = m.down(x.mean((2, 3), keepdim=True))
        return x * m.gate(m.up(m.squeeze(g)))

    return _net(
        function, 8, a=_conv(3, 8), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1), gate=gate,
        squeeze=squeeze, **parts,
    )  # fmt: skip


def _se_linear(expand: bool) -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.bn(m.a(x)))
        n, c, _, _ = x.shape
        g = torch.sigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(x, 1).view(n, c)))))
        g = g.view(n, c, 1, 1)
        return x * (g.expand_as(x) if expand else g)

    return _net(
        function, 8, a=_conv(3, 8), bn=nn.BatchNorm2d(8), down=nn.Linear(8, 4), up=nn.Linear(4, 8)
    )


def _dense(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    x = torch.cat([x, m.a(F.relu(m.bn1(x)))], 1)
    x = torch.cat([x, m.b(F.relu(m.bn2(x)))], 1)
    return F.relu(m.bn3(x))


def _residual(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    x = F.relu(x + m.b(F.relu(m.bn(m.a(x)))))
    return F.relu(m.short(x) + m.d(F.relu(m.c(x))))


def _nested(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    left, right = F.relu(m.a(x)), m.b(x)
    x = x + torch.cat([left, right], 1)
    return x + m.c(torch.cat([F.relu(x), left], 1))


def _shuffle(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    a, b = x.chunk(2, 1)
    x = torch.cat([a, F.relu(m.pw(m.dw(F.relu(m.a(b)))))], 1)
    n, c, h, w = x.shape
    return F.relu(m.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


def _grouped_shuffle(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(F.relu(m.stem(x))))
    n, c, h, w = x.shape
    return F.relu(m.b(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)))


def _slices(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    p, q, r = x.split([2, 3, 3], 1)
    y = torch.cat([F.relu(q), m.a(x[:, 1:7:2]), r - q, p.sigmoid()], 1)
    return y[:, torch.tensor([0, 4, 4, 2, 8, 9, 1, 6])]


def _convnext(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    y = m.norm(m.dw(x).permute(0, 2, 3, 1))
    y = m.b(F.gelu(m.a(y))).permute(0, 3, 1, 2)
    return x + m.scale * y


def _convnext_net(scaled_last: bool = False) -> nn.Module:
    def scaled_before_it_is_turned_back(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.b(F.gelu(m.a(m.norm(m.dw(x).permute(0, 2, 3, 1)))))
        return x + (m.scale.flatten() * y).permute(0, 3, 1, 2)

    net = _net(
        scaled_before_it_is_turned_back if scaled_last else _convnext, 8, stem=_conv(3, 8),
        dw=_conv(8, 8, groups=8), norm=nn.LayerNorm(8), a=nn.Linear(8, 16), b=nn.Linear(16, 8),
    )  # fmt: skip
    net[0].register_parameter("scale", nn.Parameter(torch.ones(8, 1, 1)))
    return net


def _transform_input(m: nn.Module, x: Tensor) -> Tensor:
    parts = [x[:, i].unsqueeze(1) * (0.4 + i / 10) + (i - 1) / 5 for i in range(3)]
    return F.relu(m.b(F.relu(m.a(torch.cat(parts, 1)))))


def _spatial_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    return F.relu(m.c(x * torch.sigmoid(m.b(x))))


def _coordinate_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    tall = F.adaptive_avg_pool2d(x, (SIDE, 1))
    wide = F.adaptive_avg_pool2d(x, (1, SIDE))
    return x * torch.sigmoid(m.b(tall)) * torch.sigmoid(m.c(wide))


def _shared(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    return F.relu(m.a(F.relu(m.a(x)))) + m.b(x)


def _shared_bn(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    return torch.cat([F.relu(m.bn1(m.a(x))), F.relu(m.bn2(m.a(F.max_pool2d(x, 3, 1, 1))))], 1)


class _SharedBias(nn.Module):
    """Two convolutions with weights of their own and one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = _conv(3, 6), _conv(3, 6), _head(12)
        self.b.bias = self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1))


class _SharedWidths(nn.Module):
    """One weight, in a plain and in a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.head = _conv(3, 8), _conv(4, 8), _head(10)
        self.free = _conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(F.conv2d(x, self.a.weight, self.a.bias, padding=1, groups=2))
        y = y + F.relu(self.a(x[:, :4]))
        return self.head(torch.cat([y, F.relu(self.free(x))], 1))


class _Colliding(nn.Module):
    """Parameter names that differ only in dots and underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleDict({"b": _conv(3, 8)})
        self.a_b = _conv(8, 8)
        self.head = _head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a_b(F.relu(self.a["b"](x)))))


def _scores_of_scores(m: nn.Module, x: Tensor) -> Tensor:
    scores = m.head(F.relu(m.a(x)))
    return scores + m.c(F.relu(m.b(scores)))


def _recurrent_scores(m: nn.Module, x: Tensor) -> Tensor:
    return m.c(F.relu(m.c(m.head(F.relu(m.a(x))))))


def _two_heads(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x)).mean((2, 3))
    return torch.cat([m.b(x), m.c(F.relu(x))], 1)


def _flat_order(m: nn.Module, x: Tensor) -> Tensor:
    return m.b(F.max_pool2d(F.relu(m.a(x)), 3).permute(0, 2, 3, 1).flatten(1))


def _gate_and_bias(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    scale, shift = m.b(x.flatten(2).mean(2)).chunk(2, 1)
    return F.relu(x * scale.sigmoid()[:, :, None, None] + shift[:, :, None, None])


def _constants(m: nn.Module, x: Tensor) -> Tensor:
    x = torch.add(m.a(x), 2.0, alpha=3)
    x = torch.add(1.5, F.relu(x), alpha=-2) / 3 - 0.25
    return 1 - torch.sigmoid(torch.sub(m.b(x), x, alpha=0.5))


def _squeezes(m: nn.Module, x: Tensor) -> Tensor:
    x = F.adaptive_max_pool2d(F.relu(m.a(x)), 1).squeeze() + m.b(F.relu(m.c(x)).amax((2, 3)))
    return m.d(F.relu(x))


def _masked_before(m: nn.Module, x: Tensor) -> Tensor:
    return F.relu(m.b(F.relu(m.a(x)) * m.keep))


def _masked_net() -> nn.Module:
    net = _net(_masked_before, 6, a=_conv(3, 8), b=_conv(8, 6))
    keep = torch.rand(8, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) > 0.4
    net[0].register_buffer("keep", keep)
    return net


def _same_padding() -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(F.pad(x, (0, 1, 1, 2))))
        return F.relu(m.c(F.pad(F.relu(m.b(x)), (-1, 2, 0, -1))))

    return _net(
        function, 6, a=nn.Conv2d(3, 8, 2, padding="valid"),
        b=nn.Conv2d(8, 6, (4, 2), padding="same"),
        c=nn.Conv2d(6, 6, 3, padding="same", dilation=2),
    )  # fmt: skip


ARCHITECTURES: Mapping[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), _conv(8, 10), nn.ReLU(), _head(10)
    ),
    "flatten to linear": lambda: nn.Sequential(
        _conv(3, 6), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(),
        nn.Dropout(), nn.Linear(20, CLASSES),
    ),
    "flatten channels last": lambda: _Net(
        _flat_order, a=_conv(3, 6), b=nn.Sequential(nn.Linear(96, 9), nn.ReLU(), nn.Linear(9, 7))
    ),
    "convolution as classifier": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "batch norm": lambda: nn.Sequential(
        _conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), _conv(8, 8), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9), nn.BatchNorm1d(9),
        nn.ReLU(), nn.Linear(9, CLASSES), nn.BatchNorm1d(CLASSES, affine=False),
    ),
    "batch norm, two readers": lambda: _net(
        lambda m, x: F.relu(m.bn(y := m.a(x))) + m.b(y), 8, a=_conv(3, 8), b=_conv(8, 8),
        bn=nn.BatchNorm2d(8),
    ),
    "batch norm after activation": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.BatchNorm2d(8), _conv(8, 6),
        nn.ReLU(), _head(6),
    ),
    "pre-activation, dense": lambda: _net(
        _dense, 16, stem=_conv(3, 8), bn1=nn.BatchNorm2d(8), a=_conv(8, 4), bn2=nn.BatchNorm2d(12),
        b=_conv(12, 4), bn3=nn.BatchNorm2d(16),
    ),
    "residual": lambda: _net(
        _residual, 10, stem=_conv(3, 8), a=_conv(8, 6), bn=nn.BatchNorm2d(6), b=_conv(6, 8),
        short=_conv(8, 10, 1), c=_conv(8, 6), d=_conv(6, 10),
    ),
    "residual through concat": lambda: _net(
        _nested, 8, stem=_conv(3, 8), a=_conv(8, 3), b=_conv(8, 5), c=_conv(11, 8, 1)
    ),
    "concat": lambda: _net(
        lambda m, x: m.d(
            torch.cat([F.relu(m.a(x)), F.relu(m.b(x)), F.max_pool2d(m.c(x), 3, 1, 1)], 1)
        ),
        6, a=_conv(3, 4, 1), b=_conv(3, 5), c=_conv(3, 3, 5), d=_conv(12, 6),
    ),
    "concat with itself": lambda: _net(
        lambda m, x: F.relu(m.b(torch.cat([y := F.relu(m.a(x)), y], 1) + 0.5)), 6, a=_conv(3, 5),
        b=_conv(10, 6),
    ),
    "depthwise": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU6(), _conv(8, 8, groups=8, stride=2), nn.BatchNorm2d(8), nn.ReLU6(),
        _conv(8, 6, 1), nn.ReLU(), _head(6),
    ),
    "depthwise, multiplier 2": lambda: nn.Sequential(
        _conv(3, 6), nn.ReLU(), _conv(6, 12, groups=6), nn.ReLU(), _conv(12, 6, 1), _head(6)
    ),
    "depthwise on the input": lambda: nn.Sequential(
        _conv(3, 6, groups=3), nn.ReLU(), _conv(6, 6), nn.ReLU(), _head(6)
    ),
    "grouped": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), _conv(8, 12, groups=4), nn.ReLU(), _conv(12, 6), nn.ReLU(), _head(6)
    ),
    "channel shuffle": lambda: _net(
        _shuffle, 6, stem=_conv(3, 8), a=_conv(4, 4, 1), dw=_conv(4, 4, groups=4),
        pw=_conv(4, 4, 1), b=_conv(8, 6),
    ),
    "channel shuffle, grouped": lambda: _net(
        _grouped_shuffle, 12, stem=_conv(3, 8), a=_conv(8, 8, groups=4), b=_conv(8, 12, groups=4)
    ),
    "split, slice and pick": lambda: _net(_slices, 8, stem=_conv(3, 8), a=_conv(3, 4)),
    "shared": lambda: _net(_shared, 8, stem=_conv(3, 8), a=_conv(8, 8), b=_conv(8, 8, 1)),
    "shared, batch norm after": lambda: _net(
        _shared_bn, 12, stem=_conv(3, 8), a=_conv(8, 6), bn1=nn.BatchNorm2d(6),
        bn2=nn.BatchNorm2d(6),
    ),
    "shared bias": _SharedBias,
    "shared by different widths": _SharedWidths,
    "squeeze-excite": lambda: _se(nn.Sigmoid(), nn.ReLU()),
    "squeeze-excite, hard": lambda: _se(nn.Hardsigmoid(), nn.SiLU()),
    "squeeze-excite, linear": lambda: _se_linear(expand=False),
    "squeeze-excite, linear, expanded": lambda: _se_linear(expand=True),
    "gate and bias": lambda: _net(_gate_and_bias, 8, a=_conv(3, 8), b=nn.Linear(8, 16)),
    "spatial attention": lambda: _net(
        _spatial_attention, 6, a=_conv(3, 8), b=_conv(8, 1), c=_conv(8, 6)
    ),
    "coordinate attention": lambda: _net(
        _coordinate_attention, 8, a=_conv(3, 8), b=_conv(8, 8, 1), c=_conv(8, 8, 1)
    ),
    "local response norm": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), nn.LocalResponseNorm(5, 0.1), nn.MaxPool2d(2), _conv(8, 7),
        nn.ReLU(), nn.LocalResponseNorm(4, 0.2, 0.5, 2.0), _head(7),
    ),
    "scores through local response norm": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(), _conv(8, 7), nn.ReLU(), nn.LocalResponseNorm(3, 0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
    "channels-last linear": _convnext_net,
    "channels-last scale": lambda: _convnext_net(scaled_last=True),
    "pools": _pools_of(
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True), nn.AdaptiveAvgPool2d((2, 3)),
    ),
    "pools, padded": _pools_of(
        nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AdaptiveMaxPool2d(2),
        nn.MaxPool2d(2, 1, dilation=1),
    ),
    "global mean, no keepdim": lambda: _Net(
        lambda m, x: m.b(F.relu(m.a(x)).mean([2, 3])), a=_conv(3, 8), b=nn.Linear(8, CLASSES)
    ),
    "squeeze and maximum": lambda: _Net(
        _squeezes, a=_conv(3, 8), c=_conv(3, 6), b=nn.Linear(6, 8), d=nn.Linear(8, CLASSES)
    ),
    "constant input normalisation": lambda: _net(_transform_input, 6, a=_conv(3, 8), b=_conv(8, 6)),
    "constants": lambda: _net(_constants, 8, a=_conv(3, 8), b=_conv(8, 8)),
    "activations": _chain_of(
        nn.Hardswish(), nn.GELU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SiLU(), nn.Tanh()
    ),
    "activations, more": _chain_of(
        nn.Mish(), nn.Softplus(2), nn.GELU("tanh"), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7),
        nn.Hardsigmoid(), nn.Sigmoid(), nn.SELU(),
    ),
    "in place": lambda: nn.Sequential(
        _conv(3, 8), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.SiLU(inplace=True), _conv(8, 6),
        nn.Hardswish(inplace=True), _head(6),
    ),
    "padding": _same_padding,
    "stride and dilation": lambda: nn.Sequential(
        _conv(3, 8, 5, stride=(2, 1)), nn.ReLU(), nn.Conv2d(8, 6, (3, 1), (1, 2), (2, 1), (2, 1)),
        nn.ReLU(), nn.Conv2d(6, 6, 3, 3), nn.ReLU(), _head(6),
    ),
    "names that collide": _Colliding,
    "scores made of scores": lambda: _Net(
        _scores_of_scores, a=_conv(3, 8), head=_head(8), b=nn.Linear(7, 5), c=nn.Linear(5, 7)
    ),
    "scores from a shared layer": lambda: _Net(
        _recurrent_scores, a=_conv(3, 8), head=_head(8), c=nn.Linear(7, 7)
    ),
    "two heads": lambda: _Net(
        _two_heads, a=_conv(3, 8), b=nn.Linear(8, 3), c=nn.Linear(8, 4)
    ),
    "masked before": _masked_net,
}  # fmt: skip
