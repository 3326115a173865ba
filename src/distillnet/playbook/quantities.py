"""What the slides count of a network: its output, its parameters and its computation."""

import math
from dataclasses import dataclass

import numpy as np

from distillnet.cut.cost import cost
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS

__all__ = ["FLOAT32_BYTES", "Quantities", "quantities"]

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Quantities:
    """Of one image: numbers that the layers put out, and MACs; and the parameters."""

    output: int
    params: int
    macs: int

    @property
    def gradient_bytes(self) -> int:
        """What every worker has to make known in each step of data-parallel training."""
        return FLOAT32_BYTES * self.params


def quantities(graph: Graph) -> Quantities:
    """Count a network's output, parameters and computation; MACs and parameters as ``cost`` does.

    The output is that of convolutions and linear layers, before activation and pooling. Of the
    layers that make the network's scores it is the scores: a map of them that is averaged at once,
    as in NiN and SqueezeNet, counts as its mean. (This is the reading under which all of the
    slides' figures come out; with the whole map, 4x more classes would be 1.06x the output of NiN.)

    >>> from torch import nn
    >>> from distillnet.graph.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    >>> quantities(capture(net, (8, 8)))
    Quantities(output=290, params=802, macs=8352)
    """
    channels = analyse(graph)
    output = 0
    for node in graph.nodes:
        if node.op in LAYERS:
            makes_scores = bool(np.isin(channels.of[node.name], channels.outputs).all())
            output += node.shape[0] if makes_scores else math.prod(node.shape)
    total = cost(graph, channels)
    return Quantities(output, total.params, total.macs)
