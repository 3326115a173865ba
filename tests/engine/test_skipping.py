"""What the C carries out for a mission, counted by hand."""

import torch
from torch import nn

from distillnet.cut.plan import Plan
from distillnet.engine import macs_in_c
from distillnet.graph import Graph
from distillnet.graph.capture import capture

_SIDE = 8


def _chain(*widths: int) -> Graph:
    """Convolutions of 3 x 3 with a relu each, and a score for each map of the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return capture(net.eval(), (_SIDE, _SIDE))


def test_whole_blocks_count_at_all_places_that_one_of_their_channels_needs() -> None:
    graph = _chain(40, 16)
    site = next(n.name for n in graph.nodes if n.op == "act")
    keep = torch.zeros(40, _SIDE, _SIDE, dtype=torch.bool)
    keep[:, :2] = True  # two rows of all channels, and
    keep[7, 5, :3] = True  # three places more of one: all of its strip computes them
    places = _SIDE * _SIDE
    first = 48 * 27  # 40 channels are three blocks, which one strip holds
    second = 16 * 40 * 9 * places
    assert macs_in_c(graph) == first * places + second
    assert macs_in_c(graph, Plan({site: keep})) == first * (2 * _SIDE + 3) + second


def test_inputs_that_are_always_zero_are_not_multiplied() -> None:
    """Channels that are gone cost their reader nothing; nor does what a linear layer reads of a
    map where nothing is computed."""
    graph = _chain(40, 16)
    site = next(n.name for n in graph.nodes if n.op == "act")
    keep = torch.ones(40, _SIDE, _SIDE, dtype=torch.bool)
    keep[8:24] = False
    places = _SIDE * _SIDE
    expected = 48 * 27 * places + 16 * (40 - 16) * 9 * places  # one strip holds all of the first
    assert macs_in_c(graph, Plan({site: keep})) == expected

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * 4 * 4, 7),
        )  # fmt: skip
    graph = capture(net.eval(), (_SIDE, _SIDE))
    site = next(n.name for n in graph.nodes if n.op == "act")
    keep = torch.ones(16, _SIDE, _SIDE, dtype=torch.bool)
    keep[:, :4] = False  # two of the pool's four rows see nothing else
    assert macs_in_c(graph, Plan({site: keep})) == 16 * 27 * 32 + 16 * 16 * 4 * 2


def test_scores_that_a_mission_lacks_are_not_computed_before_the_pool_either() -> None:
    graph = _chain(16, 64)
    whole, mission = macs_in_c(graph), macs_in_c(graph, Plan(outputs=(1, 5)))
    assert whole is not None
    assert mission is not None
    assert whole - mission == 32 * 16 * 9 * _SIDE * _SIDE  # one strip of two blocks is left
