"""Pools ahead of normalisations: what changes, what does not, and what is left alone."""

import pytest
import torch
from torch import nn

from distillnet.cut.cost import class_work
from distillnet.cut.pools import pools_first
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse


class _Net(nn.Module):
    def __init__(self, pool: nn.Module, *, both: bool = False, last: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 12, 3), nn.Linear(12, 4)
        self.norm, self.pool = nn.LocalResponseNorm(5, alpha=0.5), pool
        self.both, self.last = both, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x).relu())
        y = self.pool(x)
        if self.last:
            return y.flatten(1)
        return self.head(y.mean((2, 3)) + (x.mean((2, 3)) if self.both else 0))


def _graph(module: nn.Module, channels: int = 3) -> Graph:
    torch.manual_seed(0)
    return capture(module.eval(), (20, 20), channels=channels)


def _scores(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    return run(graph, {graph.input.name: x})[graph.output]


@pytest.mark.parametrize("last", [False, True])
def test_a_pool_goes_before_the_normalisation_that_only_it_reads(last: bool) -> None:
    torch.manual_seed(0)
    module = _Net(nn.MaxPool2d(3, 2, ceil_mode=True), last=last).eval()
    swapped = pools_first(graph := _graph(module))
    ops = [node.op for node in swapped.nodes]
    assert ops.index("max_pool") + 1 == ops.index("lrn")
    assert {node.name for node in swapped.nodes} == {node.name for node in graph.nodes}
    x = torch.randn(4, 3, 20, 20)
    by_hand = module.norm(module.pool(module.conv(x).relu()))
    want = by_hand.flatten(1) if last else module.head(by_hand.mean((2, 3)))
    torch.testing.assert_close(_scores(swapped, x), want)
    nothing = torch.zeros(analyse(graph).count, dtype=torch.bool).numpy()
    works = [class_work(g, analyse(g), nothing, element=10.0) for g in (graph, swapped)]
    assert works[1] < works[0]


@pytest.mark.parametrize(
    "module", [_Net(nn.AvgPool2d(3, 2)), _Net(nn.MaxPool2d(3, 2), both=True), nn.Conv2d(3, 4, 20)]
)
def test_all_else_is_left_as_it_is(module: nn.Module) -> None:
    graph = _graph(nn.Sequential(module, nn.Flatten()))
    assert pools_first(graph) is graph


def test_of_one_channel_both_orders_are_one() -> None:
    """x / (1 + a x^2)^b grows with x where b <= 1/2, so the largest x has the largest quotient."""
    pool, norm = nn.MaxPool2d(2), nn.LocalResponseNorm(1, alpha=0.7, beta=0.5)
    graph = _graph(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), norm, pool, nn.Flatten()), 1)
    x = torch.randn(2, 1, 20, 20)
    torch.testing.assert_close(_scores(pools_first(graph), x), _scores(graph, x))
