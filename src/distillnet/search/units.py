"""What a threshold applies to: one site's neurons, or the channels of sites that are tied."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillnet.bitmaps import bitmap, fuse, quantile_threshold
from distillnet.channels import Channels
from distillnet.graph import Graph
from distillnet.search.scores import Score

__all__ = ["Unit", "channel_units", "neuron_units"]


@dataclass(frozen=True)
class Unit:
    """Sites that get their thresholds together, from one share.

    ``cut`` gives, for the share of neurons or channels to let go, the threshold and the fused keep
    map of each site.
    """

    sites: tuple[str, ...]
    cut: Callable[[float], dict[str, tuple[float, Tensor]]]


def neuron_units(channels: Channels, score: Score) -> tuple[Unit, ...]:
    """One unit a site, cut neuron by neuron: the paper's bitmaps (Eq. 13, 14)."""

    def unit(site: str) -> Unit:
        def cut(share: float) -> dict[str, tuple[float, Tensor]]:
            values = score(site)
            threshold = quantile_threshold(values, share)
            return {site: (threshold, fuse(bitmap(values, threshold)))}

        return Unit((site,), cut)

    return tuple(unit(site) for site in channels.sites)


def channel_units(graph: Graph, channels: Channels, score: Score) -> tuple[Unit, ...]:
    """Sites that share channel classes make one unit, cut by whole channels (Eq. 15).

    A channel's score is that of its hottest neuron at any class, over the site's mean so that the
    tied sites compare; a class's that of its hottest channel. So a class goes everywhere at once.
    """
    leader: dict[int, str] = {}
    members: dict[str, list[str]] = {}
    for site in channels.sites:
        ids = channels.of[site].tolist()
        known = sorted({leader[c] for c in ids if c in leader}, key=channels.sites.index)
        home = known[0] if known else site
        members.setdefault(home, []).append(site)
        for other in known[1:]:  # this site ties units that were separate so far
            members[home].extend(members.pop(other))
            leader.update({c: home for c, at in leader.items() if at == other})
        leader.update(dict.fromkeys(ids, home))

    def unit(sites: tuple[str, ...]) -> Unit:
        def cut(share: float) -> dict[str, tuple[float, Tensor]]:
            hottest = {site: _hottest(score(site)) for site in sites}
            of_class = torch.full((channels.count,), float("-inf"))
            for site in sites:
                np.maximum.at(of_class.numpy(), channels.of[site], hottest[site].numpy())
            free = sorted(
                {c for s in sites for c in channels.of[s].tolist()} - set(channels.pinned)
            )
            threshold = quantile_threshold(of_class[free][None], share)
            result = {}
            for site in sites:
                stays = of_class[torch.from_numpy(channels.of[site])] >= threshold
                pinned = [c in channels.pinned for c in channels.of[site].tolist()]
                stays |= torch.tensor(pinned)
                shape = graph[site].shape
                keep = stays.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
                result[site] = (threshold * _scale(score(site)), keep)
            return result

        return Unit(sites, cut)

    order = {site: i for i, site in enumerate(channels.sites)}
    return tuple(unit(tuple(sorted(sites, key=order.__getitem__))) for sites in members.values())


def _scale(values: Tensor) -> float:
    return float(values.abs().mean().clamp_min(1e-12))


def _hottest(values: Tensor) -> Tensor:
    """(K, C, ...) -> (C,), over the site's mean."""
    return values.amax(0).reshape(values.shape[1], -1).amax(1) / _scale(values)
