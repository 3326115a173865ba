"""How much each neuron matters to a mission: one small function per score.

A score is a function from a site's name to a float tensor (K, C, H, W) or (K, F), K the mission's
classes or 1 when it does not depend on them; higher is kept longer. The paper's search turns it
into bitmaps by one threshold per site; the best search, by ``class_importance``, into an order in
which channels go. To add one, write it here and name it in ``SCORES``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.atlas import Atlas
from distillnet.classes import Mission
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.operators import LAYERS

__all__ = [
    "SCORES",
    "Findings",
    "Score",
    "class_importance",
    "heat",
    "l1",
    "random",
    "sensitivity",
    "variance",
]

Score = Callable[[str], Tensor]


@dataclass(frozen=True)
class Findings:
    """What a score may know.

    ``gradients`` holds by site (C, H, W) the mean squared gradient of the mission's centred scores,
    possibly at another input size than the atlas; see ``search.evidence``.
    """

    graph: Graph
    channels: Channels
    atlas: Atlas
    mission: Mission
    seed: int
    gradients: Mapping[str, Tensor] = field(default_factory=dict)


def heat(known: Findings) -> Score:
    """The paper's: each neuron's mean output over a class's images (Eq. 12)."""
    return lambda site: known.atlas.heat(site, known.mission.indices)


def variance(known: Findings) -> Score:
    """How much a neuron varies over the mission's images, within classes and between: (1, ...)."""

    def score(site: str) -> Tensor:
        within = known.atlas.variance(site, known.mission.indices).mean(0, keepdim=True)
        between = known.atlas.heat(site, known.mission.indices).var(0, correction=0, keepdim=True)
        return within + between

    return score


def sensitivity(known: Findings) -> Score:
    """Variance times squared gradient: to first order, how a neuron at its mean moves the scores.

    Its mean over the map where gradients were measured at another input size.
    """
    varies = variance(known)

    def score(site: str) -> Tensor:
        spread, felt = varies(site), known.gradients[site].cpu()[None]
        if spread.shape == felt.shape:
            return spread * felt
        shape = (*spread.shape[:2], -1)
        product = spread.reshape(shape).mean(2) * felt.reshape(shape).mean(2)
        return product[:, :, None, None].expand(spread.shape)

    return score


def random(known: Findings) -> Score:
    """A random number per channel class: the baseline that any score has to beat."""
    generator = torch.Generator().manual_seed(known.seed)
    drawn = torch.rand(known.channels.count, generator=generator)
    return lambda site: _per_channel(known, drawn, site)


def l1(known: Findings) -> Score:
    """The L1 norm of the filters that make a channel: the usual baseline without data.

    Li et al., Pruning Filters for Efficient ConvNets, 2017.
    """
    norms = torch.zeros(known.channels.count)
    for node in known.graph.nodes:
        if node.op in LAYERS:
            weight = known.graph.params[node.params["weight"]].detach().float().cpu()
            per_filter = weight.abs().reshape(len(weight), -1).sum(1)
            norms.index_add_(0, torch.from_numpy(known.channels.of[node.name]), per_filter)
    return lambda site: _per_channel(known, norms, site)


def _per_channel(known: Findings, values: Tensor, site: str) -> Tensor:
    """One value per channel class, spread over the channel's map: (1, C, H, W)."""
    shape = known.graph[site].shape
    per_channel = values[torch.from_numpy(known.channels.of[site])]
    return per_channel.reshape(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)


SCORES: Mapping[str, Callable[[Findings], Score]] = {
    "heat": heat,
    "variance": variance,
    "sensitivity": sensitivity,
    "l1": l1,
    "random": random,
}


def class_importance(channels: Channels, score: Score) -> NDArray[np.float64]:
    """One value per channel class (classes,): the mean of its map where and for whom it is largest.

    Over the site's mean, so that tied sites compare; zero for classes without a site.
    """
    result = np.full(channels.count, -np.inf)
    for site in channels.sites:
        values = score(site).double()
        per_channel = values.reshape(*values.shape[:2], -1).mean(2).amax(0)
        scale = per_channel.abs().mean().clamp_min(1e-30)
        np.maximum.at(result, channels.of[site], (per_channel / scale).numpy())
    return np.where(np.isfinite(result), result, 0.0)
