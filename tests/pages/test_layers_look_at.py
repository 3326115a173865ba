"""What a layer looks at, against the deconvolution written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distillnet.graph.capture import capture
from distillnet.pages.report.drawing import network_graph
from distillnet.pages.report.looking import project


def test_a_map_goes_back_through_filters_switches_and_positive_parts() -> None:
    pytest.importorskip("captum")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2),
    ).eval()  # fmt: skip
    graph = capture(net, (8, 8))
    x, channel = torch.randn(1, 3, 8, 8), 2
    site = [node.name for node in graph.nodes if node.op == "act"][1]
    one, two = net[0], net[3]
    assert isinstance(one, nn.Conv2d)
    assert isinstance(two, nn.Conv2d)
    with torch.no_grad():
        first = F.relu(one(x))
        pooled, switches = F.max_pool2d(first, 2, return_indices=True)
        second = F.relu(two(pooled))
        back = torch.zeros_like(second)
        at = second[0, channel].flatten().argmax()
        back[0, channel].view(-1)[at] = 1.0
        back = F.conv_transpose2d(F.relu(back), two.weight, padding=1)
        back = F.max_unpool2d(back, switches, 2)
        expected = F.conv_transpose2d(F.relu(back), one.weight, padding=1)
    assert torch.allclose(project(graph, site, x, channel), expected[0], atol=1e-6)


def test_the_drawn_graph_has_layers_and_where_they_meet() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x).relu()
            y: torch.Tensor = self.c(torch.cat([x, self.b(x).relu()], 1).mean((2, 3)))
            return y

    drawn = network_graph(capture(Net(), (8, 8)))
    assert set(drawn.edges) == {
        ("input", "a"), ("a", "b"), ("a", "cat"), ("b", "cat"), ("cat", "c"),
    }  # fmt: skip
