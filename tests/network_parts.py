"""What the tiny networks of ``architectures`` are made of."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 12
CLASSES = 7


class Net(nn.Module):
    """The parts as submodules ``a``, ``b``, ..., and a function of this module and the input."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def net(function: Callable[..., Tensor], channels: int, **parts: nn.Module) -> nn.Module:
    """``function`` gives a map of ``channels``; a pooled linear head follows."""
    return nn.Sequential(Net(function, **parts), head(channels))


def conv(c: int, m: int, k: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(c, m, k, padding=options.pop("padding", k // 2), **options)  # type: ignore


def chain_of(*activations: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers: list[nn.Module] = [conv(3, 8)]
        for activation in activations:
            layers += [activation, conv(8, 8)]
        return nn.Sequential(*layers, head(8))

    return make


def pools_of(*pools: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers: list[nn.Module] = [conv(3, 6), nn.ReLU()]
        for pool in pools:
            layers += [pool, conv(6, 6), nn.ReLU()]
        return nn.Sequential(*layers, head(6))

    return make


def se(gate: nn.Module, squeeze: nn.Module, **parts: nn.Module) -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        g = m.down(x.mean((2, 3), keepdim=True))
        return x * m.gate(m.up(m.squeeze(g)))

    return net(
        function, 8, a=conv(3, 8), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1), gate=gate,
        squeeze=squeeze, **parts,
    )  # fmt: skip


def se_linear(expand: bool) -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.bn(m.a(x)))
        n, c, _, _ = x.shape
        g = torch.sigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(x, 1).view(n, c)))))
        g = g.view(n, c, 1, 1)
        return x * (g.expand_as(x) if expand else g)

    return net(
        function, 8, a=conv(3, 8), bn=nn.BatchNorm2d(8), down=nn.Linear(8, 4), up=nn.Linear(4, 8)
    )


def dense(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    x = torch.cat([x, m.a(F.relu(m.bn1(x)))], 1)
    x = torch.cat([x, m.b(F.relu(m.bn2(x)))], 1)
    return F.relu(m.bn3(x))


def residual(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    x = F.relu(x + m.b(F.relu(m.bn(m.a(x)))))
    return F.relu(m.short(x) + m.d(F.relu(m.c(x))))


def nested(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    left, right = F.relu(m.a(x)), m.b(x)
    x = x + torch.cat([left, right], 1)
    return x + m.c(torch.cat([F.relu(x), left], 1))


def shuffle(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    a, b = x.chunk(2, 1)
    x = torch.cat([a, F.relu(m.pw(m.dw(F.relu(m.a(b)))))], 1)
    n, c, h, w = x.shape
    return F.relu(m.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


def grouped_shuffle(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(F.relu(m.stem(x))))
    n, c, h, w = x.shape
    return F.relu(m.b(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)))


def slices(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    p, q, r = x.split([2, 3, 3], 1)
    y = torch.cat([F.relu(q), m.a(x[:, 1:7:2]), r - q, p.sigmoid()], 1)
    return y[:, torch.tensor([0, 4, 4, 2, 8, 9, 1, 6])]


def convnext(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x)
    y = m.norm(m.dw(x).permute(0, 2, 3, 1))
    y = m.b(F.gelu(m.a(y))).permute(0, 3, 1, 2)
    return x + m.scale * y


def convnext_net(scaled_last: bool = False) -> nn.Module:
    def scaled_before_it_is_turned_back(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.b(F.gelu(m.a(m.norm(m.dw(x).permute(0, 2, 3, 1)))))
        return x + (m.scale.flatten() * y).permute(0, 3, 1, 2)

    made = net(
        scaled_before_it_is_turned_back if scaled_last else convnext, 8, stem=conv(3, 8),
        dw=conv(8, 8, groups=8), norm=nn.LayerNorm(8), a=nn.Linear(8, 16), b=nn.Linear(16, 8),
    )  # fmt: skip
    made[0].register_parameter("scale", nn.Parameter(torch.ones(8, 1, 1)))
    return made


def transform_input(m: nn.Module, x: Tensor) -> Tensor:
    parts = [x[:, i].unsqueeze(1) * (0.4 + i / 10) + (i - 1) / 5 for i in range(3)]
    return F.relu(m.b(F.relu(m.a(torch.cat(parts, 1)))))


def spatial_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    return F.relu(m.c(x * torch.sigmoid(m.b(x))))


def coordinate_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    tall = F.adaptive_avg_pool2d(x, (SIDE, 1))
    wide = F.adaptive_avg_pool2d(x, (1, SIDE))
    return x * torch.sigmoid(m.b(tall)) * torch.sigmoid(m.c(wide))


def shared(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    return F.relu(m.a(F.relu(m.a(x)))) + m.b(x)


def shared_bn(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    return torch.cat([F.relu(m.bn1(m.a(x))), F.relu(m.bn2(m.a(F.max_pool2d(x, 3, 1, 1))))], 1)


class SharedBias(nn.Module):
    """Two convolutions with weights of their own and one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 6), conv(3, 6), head(12)
        self.b.bias = self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1))


class SharedWidths(nn.Module):
    """One weight, in a plain and in a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.head = conv(3, 8), conv(4, 8), head(10)
        self.free = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(F.conv2d(x, self.a.weight, self.a.bias, padding=1, groups=2))
        y = y + F.relu(self.a(x[:, :4]))
        return self.head(torch.cat([y, F.relu(self.free(x))], 1))


class Colliding(nn.Module):
    """Parameter names that differ only in dots and underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleDict({"b": conv(3, 8)})
        self.a_b = conv(8, 8)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a_b(F.relu(self.a["b"](x)))))


def scores_of_scores(m: nn.Module, x: Tensor) -> Tensor:
    scores = m.head(F.relu(m.a(x)))
    return scores + m.c(F.relu(m.b(scores)))


def recurrent_scores(m: nn.Module, x: Tensor) -> Tensor:
    return m.c(F.relu(m.c(m.head(F.relu(m.a(x))))))


def two_heads(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x)).mean((2, 3))
    return torch.cat([m.b(x), m.c(F.relu(x))], 1)


def flat_order(m: nn.Module, x: Tensor) -> Tensor:
    return m.b(F.max_pool2d(F.relu(m.a(x)), 3).permute(0, 2, 3, 1).flatten(1))


def gate_and_bias(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    scale, shift = m.b(x.flatten(2).mean(2)).chunk(2, 1)
    return F.relu(x * scale.sigmoid()[:, :, None, None] + shift[:, :, None, None])


def constants(m: nn.Module, x: Tensor) -> Tensor:
    x = torch.add(m.a(x), 2.0, alpha=3)
    x = torch.add(1.5, F.relu(x), alpha=-2) / 3 - 0.25
    return 1 - torch.sigmoid(torch.sub(m.b(x), x, alpha=0.5))


def squeezes(m: nn.Module, x: Tensor) -> Tensor:
    x = F.adaptive_max_pool2d(F.relu(m.a(x)), 1).squeeze() + m.b(F.relu(m.c(x)).amax((2, 3)))
    return m.d(F.relu(x))


def masked_before(m: nn.Module, x: Tensor) -> Tensor:
    return F.relu(m.b(F.relu(m.a(x)) * m.keep))


def masked_net() -> nn.Module:
    made = net(masked_before, 6, a=conv(3, 8), b=conv(8, 6))
    keep = torch.rand(8, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) > 0.4
    made[0].register_buffer("keep", keep)
    return made


def same_padding() -> nn.Module:
    def function(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(F.pad(x, (0, 1, 1, 2))))
        return F.relu(m.c(F.pad(F.relu(m.b(x)), (-1, 2, 0, -1))))

    return net(
        function, 6, a=nn.Conv2d(3, 8, 2, padding="valid"),
        b=nn.Conv2d(8, 6, (4, 2), padding="same"),
        c=nn.Conv2d(6, 6, 3, padding="same", dilation=2),
    )  # fmt: skip


def channel_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    n, c, _, _ = x.shape
    gate = m.gate(x.mean((2, 3)).view(n, 1, c)).sigmoid().view(n, c, 1, 1)
    x = F.relu(m.b(x * gate.expand_as(x)))
    gate = m.other(F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(1, 2))
    return x * F.hardsigmoid(gate.transpose(1, 2)[..., None])


def pooled_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)  # negative, too: the largest of what is left may be less than that of all
    pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
    x = x * torch.sigmoid(m.b(pooled))
    return F.relu(m.c(x)) + x.sum(1)[:, None]


def split_attention(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.b(F.relu(m.a(x))))
    n, c, h, w = x.shape
    x = x.reshape(n, 2, c // 2, h, w)
    gate = m.up(F.relu(m.down(x.sum(1).mean((2, 3), keepdim=True))))
    gate = F.softmax(gate.view(n, 1, 2, -1).transpose(1, 2), 1).reshape(n, -1)
    return (x * gate.view(n, 2, c // 2, 1, 1)).sum(1)


def selective_kernels(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.stem(x))
    x = torch.stack([F.relu(m.a(x)), F.relu(m.b(x))], 1)
    gate = m.up(F.relu(m.down(x.sum(1).mean((2, 3), keepdim=True))))
    gate = gate.view(x.shape[0], 2, -1, 1, 1).softmax(1)  # len(x) would fix the batch
    return F.relu(m.c((x * gate).sum(1)))


def gated_channels_last(m: nn.Module, x: Tensor) -> Tensor:
    x = m.stem(x).permute(0, 2, 3, 1)
    gate, y = m.a(m.norm(x)).chunk(2, -1)
    y = torch.cat([F.gelu(gate) * y, m.c(x).tanh()], -1)
    return (x + m.b(y)).permute(0, 3, 1, 2)


def rows_and_columns(m: nn.Module, x: Tensor) -> Tensor:
    x = F.pixel_unshuffle(F.relu(m.a(x)), 2)
    x = F.relu(m.b(x)).flip(3)
    y = torch.roll(F.relu(m.c(x)), 2, 2)[:, :, 1:]
    return torch.cat([y[:, [3, 0, 1, 2]], x[:, :, :-1]], 1)[..., ::2]


def scaling(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    y = F.relu(m.c(F.relu(m.b(F.max_pool2d(x, 3)))))
    x = x + F.interpolate(y, scale_factor=3.0, mode="nearest")
    z = F.interpolate(m.d(x).mean((2, 3), keepdim=True), size=(SIDE, SIDE), mode="bilinear")
    return F.interpolate(F.relu(x - z), size=(7, 9), mode="nearest-exact")


def arithmetic(m: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    y = -m.b(x) * x.sum((2, 3), keepdim=True).tanh()
    return y.square() - y**2 * 0.3 + x
