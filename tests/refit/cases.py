"""Single layers of every geometry, and small networks with images."""

import torch
from torch import Tensor, nn

from architectures import SIDE, captured
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels
from distillnet.graph.operators import Node

__all__ = ["GEOMETRIES", "layer_of", "random", "with_images"]

GEOMETRIES = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3, "padding": 1},
    "7x7 stride 2": {"kernel_size": 7, "stride": 2, "padding": 3},
    "oblong": {"kernel_size": (1, 5), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 1},
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(module: nn.Module, side: int) -> tuple[Graph, Node]:
    graph = capture(nn.Sequential(module, nn.Flatten()).double(), (side, side))
    return graph, next(node for node in graph.nodes if node.op == "conv")


def with_images(name: str) -> tuple[Graph, Channels, Tensor]:
    _, graph, channels = captured(name)
    return graph, channels, random(12, 3, SIDE, SIDE, seed=1)
