"""How much each neuron matters to each class of a mission: one small function per score.

A score is a function from a site's name to a float tensor (K, C, H, W) or (K, F), K the mission's
classes or 1 when it does not depend on them; higher is kept longer. The search turns it into
bitmaps by one threshold per site. To add one, write it here and name it in ``SCORES``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from distillnet.atlas import Atlas
from distillnet.channels import Channels
from distillnet.classes import Mission
from distillnet.graph import Graph
from distillnet.operators import LAYERS

__all__ = ["SCORES", "Score", "heat", "l1", "random"]

Score = Callable[[str], Tensor]


def heat(graph: Graph, channels: Channels, atlas: Atlas, mission: Mission, seed: int) -> Score:
    """The paper's: each neuron's mean output over a class's images (Eq. 12)."""
    return lambda site: atlas.heat(site, mission.indices)


def random(graph: Graph, channels: Channels, atlas: Atlas, mission: Mission, seed: int) -> Score:
    """A random number per channel class: the baseline that any score has to beat."""
    drawn = torch.rand(channels.count, generator=torch.Generator().manual_seed(seed))
    return lambda site: _per_channel(graph, channels, drawn, site)


def l1(graph: Graph, channels: Channels, atlas: Atlas, mission: Mission, seed: int) -> Score:
    """The L1 norm of the filters that make a channel: the usual baseline without data.

    Li et al., Pruning Filters for Efficient ConvNets, 2017.
    """
    norms = torch.zeros(channels.count)
    for node in graph.nodes:
        if node.op in LAYERS:
            weight = graph.params[node.params["weight"]].detach().float().cpu()
            per_filter = weight.abs().reshape(len(weight), -1).sum(1)
            norms.index_add_(0, torch.from_numpy(channels.of[node.name]), per_filter)
    return lambda site: _per_channel(graph, channels, norms, site)


def _per_channel(graph: Graph, channels: Channels, values: Tensor, site: str) -> Tensor:
    """One value per channel class, spread over the channel's map: (1, C, H, W)."""
    shape = graph[site].shape
    per_channel = values[torch.from_numpy(channels.of[site])]
    return per_channel.reshape(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)


SCORES: Mapping[str, Callable[[Graph, Channels, Atlas, Mission, int], Score]] = {
    "heat": heat,
    "l1": l1,
    "random": random,
}
