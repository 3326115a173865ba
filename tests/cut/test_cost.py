"""Costs of small networks, worked out by hand."""

import torch
from torch import Tensor, nn

from distillnet.cut.cost import cost, inception_macs, is_inception
from distillnet.cut.plan import Plan
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse


def _keep(shape: tuple[int, ...], gone: list[int]) -> Tensor:
    keep = torch.ones(shape, dtype=torch.bool)
    keep[gone] = False
    return keep


def test_equations_9_and_10_for_two_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, stride=2, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    graph = capture(net, (6, 6))
    channels = analyse(graph)
    first, second = channels.sites
    dense = cost(graph, channels)
    assert dense.layers["0"].macs == 36 * 8 * 3 * 9
    assert dense.layers["2"].macs == 9 * 5 * 8 * 9
    assert dense.layers["6"].macs == 5 * 4
    assert dense.params == (8 * 27 + 8) + (5 * 72 + 5) + (20 + 4)

    keep = _keep((8, 6, 6), [1, 4, 7])  # three filters go completely,
    keep[0, :2, :3] = False  # and six neurons of another
    plan = Plan({first: keep}, outputs=(3, 0))
    less = cost(graph, channels, plan)
    assert dense.layers["0"].macs - less.layers["0"].macs == 3 * 36 * 27  # Eq. 9
    assert dense.layers["2"].macs - less.layers["2"].macs == 3 * 9 * 5 * 9  # Eq. 10
    assert less.layers["0"].macs - less.layers["0"].macs_with_partial == 6 * 27
    assert less.layers["6"].macs == 5 * 2
    assert less.macs == 36 * 5 * 27 + 9 * 5 * 45 + 10
    assert less.params == (5 * 27 + 5) + (5 * 45 + 5) + (10 + 2)
    assert cost(graph, channels, Plan({second: _keep((5, 3, 3), [])})).macs == dense.macs


class _Residual(nn.Module):
    """1x1 convolutions all along, so that a MAC is a neuron times its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 1)
        self.gate, self.head = nn.Conv2d(4, 4, 1), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = (self.a(x) + x).relu()  # both operands' neurons are those of the sum
        z = y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(self.c(torch.cat([y, z], 1)).relu().mean((2, 3)))


def test_needed_neurons_through_add_gate_and_concat() -> None:
    graph = capture(_Residual(), (5, 5))
    channels = analyse(graph)
    stem, y, z, c = (graph[s] for s in channels.sites)
    assert [len(n.shape) for n in (stem, y, z, c)] == [3, 3, 3, 3]
    dense = cost(graph, channels)
    assert dense.macs == 25 * (4 * 3 + 4 * 4 + 2 * 8) + 4 * 4 + 2 * 3

    half = torch.ones(4, 5, 5, dtype=torch.bool)
    half[:, 0] = False  # the first of five rows
    # The sum is masked: the branch saves a fifth; the stem does not, for ``a`` reads all of it.
    less = cost(graph, channels, Plan({y.name: half}))
    assert less.macs == dense.macs
    assert less.layers["a"].macs_with_partial == 20 * 16
    assert less.layers["stem"].macs_with_partial == 25 * 12
    # The gated copy is masked: ``y`` is still read whole by the mean and by the concat.
    less = cost(graph, channels, Plan({z.name: half}))
    assert less.macs_with_partial == dense.macs
    # All of one channel of the gated copy: its gate is not needed, yet the class stays.
    less = cost(graph, channels, Plan({z.name: _keep((4, 5, 5), [2])}))
    assert less.macs == dense.macs
    assert less.layers["gate"].macs_with_partial == 3 * 4
    # The channel at all sites of its class: it goes from every layer.
    keep = _keep((4, 5, 5), [2])
    less = cost(graph, channels, Plan({stem.name: keep, y.name: keep, z.name: keep}))
    assert less.macs == 25 * (3 * 3 + 3 * 3 + 2 * 6) + 3 * 3 + 2 * 3
    assert less.params == (9 + 3) + (9 + 3) + (9 + 3) + (12 + 2) + (6 + 3)
    # The last map is read by the mean as a whole.
    top = torch.ones(2, 5, 5, dtype=torch.bool)
    top[0, 1:4] = False
    assert cost(graph, channels, Plan({c.name: top})).layers["c"].macs_with_partial == 35 * 8


def test_a_depthwise_filter_costs_its_own_window_only() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip
    graph = capture(net, (4, 4))
    channels = analyse(graph)
    dense = cost(graph, channels)
    assert dense.layers["2"].macs == 16 * 8 * 9
    first, second = channels.sites
    plan = Plan({first: _keep((4, 4, 4), [1]), second: _keep((8, 4, 4), [2, 3])})
    less = cost(graph, channels, plan)
    assert [layer.macs for layer in less.layers.values()] == [16 * 3 * 3, 16 * 6 * 9, 96 * 2]
    assert less.params == (9 + 3) + 6 * 9 + (96 * 2 + 2)


def test_a_shared_weight_counts_once_in_parameters_and_twice_in_macs() -> None:
    conv = nn.Conv2d(4, 4, 1)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(16, 2)
    )
    graph = capture(net, (2, 2))
    total = cost(graph, analyse(graph))
    assert total.macs == 4 * 12 + 2 * 4 * 16 + 32
    assert total.params == (12 + 4) + (16 + 4) + (32 + 2)


def test_inception_modules_by_name() -> None:
    yes = ["inception_3a/1x1", "inception3a.branch1.conv", "net.inception_5b.pool", "inception4e"]
    no = ["conv1", "inception_6a", "inception", "xinception3a", "inception3ab.x"]
    assert [is_inception(name) for name in yes + no] == [True] * 4 + [False] * 5

    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inception3a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1)
            self.flat, self.head = nn.Flatten(), nn.Linear(24, 2)

    graph = capture(Net(), (2, 2))
    channels = analyse(graph)
    assert inception_macs(cost(graph, channels)) == 4 * 4 * 6
    chain = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    graph = capture(chain, (2, 2))
    assert inception_macs(cost(graph, analyse(graph))) is None
