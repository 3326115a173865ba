"""What is removed in blocks of channels is skipped by the C engine, and not just set to zero."""

import numpy as np
import pytest
import torch
from torch import nn

from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.engine import macs_in_c
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.search.budget import Budget
from distillnet.search.paper import size_function
from distillnet.search.units import block_units, neuron_units

_SIDE = 8


def chain(*widths: int) -> Graph:
    """Convolutions of 3 x 3 with a relu each, and a linear layer."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 16)
        )
    return capture(net.eval(), (_SIDE, _SIDE))


@pytest.mark.parametrize("widths", [(32, 64), (48, 96), (64, 16, 160)])
def test_what_is_removed_in_blocks_is_skipped_in_both_forms(widths: tuple[int, ...]) -> None:
    graph = chain(*widths)
    channels = analyse(graph)
    rng = np.random.default_rng(1)
    heats = {}
    for site in channels.sites:  # two kinds of channels, in any order
        n, *sides = graph[site].shape
        kinds = rng.random((2, 2, *sides))[:, rng.integers(0, 2, n)]
        heats[site] = torch.from_numpy(kinds + 0.3 * rng.random((2, n, *sides))).float()
    plans = {
        make: Plan({s: c.keep for unit in make(channels, heats.__getitem__)
                    for s, c in unit.cut(0.4).items()})
        for make in (block_units, neuron_units)
    }  # fmt: skip
    dense = macs_in_c(graph)
    assert dense is not None
    for make, plan in plans.items():
        asked = 1 - cost(graph, channels, plan).macs_with_partial / cost(graph, channels).macs
        for found in (macs_in_c(graph, plan), macs_in_c(compact(graph, channels, plan))):
            assert found is not None
            if make is block_units:
                assert 1 - found / dense == pytest.approx(asked, abs=0.01)
                assert asked > 0.1
            else:
                assert 1 - found / dense < 0.5 * asked


def test_blocks_are_priced_by_the_weights_that_need_not_be_read_too() -> None:
    """A linear layer's channel saves as many weights as MACs, a convolution's far fewer."""
    graph = capture(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 16),
            nn.ReLU(), nn.Linear(16, 4),
        ).eval(),
        (6, 6),
    )  # fmt: skip
    channels = analyse(graph)
    conv, linear = (n.name for n in graph.nodes if n.op == "act")
    costs = []
    for site in (conv, linear):
        keep = torch.ones(graph[site].shape, dtype=torch.bool)
        keep[:8] = False
        costs.append(cost(graph, channels, Plan({site: keep})))
    neurons, blocks = (size_function(Budget(), False, in_blocks) for in_blocks in (False, True))
    assert neurons(costs[0]) - neurons(costs[1]) != blocks(costs[0]) - blocks(costs[1])
    for one in costs:
        assert neurons(one) == one.macs_with_partial
        assert blocks(one) - neurons(one) == pytest.approx(3.5 * one.params)
