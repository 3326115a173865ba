"""What a threshold applies to: one site's neurons, or the channels of sites that are tied."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillnet.cut.bitmaps import bitmap, fuse, quantile_threshold
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.search.scores import Score

__all__ = ["Cut", "Unit", "channel_units", "neuron_units"]


@dataclass(frozen=True)
class Cut:
    """One site's threshold and its bitmap per class, bool (K, C, H, W) or (K, F)."""

    threshold: float
    keep_k: Tensor

    @property
    def keep(self) -> Tensor:
        """The fused keep map, bool (C, H, W) or (F,)."""
        return fuse(self.keep_k)


@dataclass(frozen=True)
class Unit:
    """Sites that are cut together; ``cut`` takes the share of neurons or channels to let go."""

    sites: tuple[str, ...]
    cut: Callable[[float], dict[str, Cut]]


def neuron_units(channels: Channels, score: Score) -> tuple[Unit, ...]:
    """One unit a site, cut neuron by neuron: the paper's bitmaps (Eq. 13, 14)."""

    def unit(site: str) -> Unit:
        def cut(share: float) -> dict[str, Cut]:
            values = score(site)
            threshold = quantile_threshold(values, share)
            return {site: Cut(threshold, bitmap(values, threshold))}

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
        def cut(share: float) -> dict[str, Cut]:
            hottest = {site: _hottest(score(site)) for site in sites}
            n_classes = len(next(iter(hottest.values())))
            of_class = np.full((n_classes, channels.count), -np.inf, dtype=np.float32)
            for site in sites:
                for row, values in zip(of_class, hottest[site].numpy(), strict=True):
                    np.maximum.at(row, channels.of[site], values)
            ids = {c for site in sites for c in channels.of[site].tolist()}
            free = sorted(ids - set(channels.pinned))
            threshold = quantile_threshold(torch.from_numpy(of_class[:, free]), share)
            of_class[:, list(channels.pinned)] = np.inf
            result = {}
            for site in sites:
                stays_kc = torch.from_numpy(of_class[:, channels.of[site]] >= threshold)
                shape = graph[site].shape
                keep_k = stays_kc.reshape(n_classes, -1, *[1] * (len(shape) - 1))
                result[site] = Cut(
                    threshold * _scale(score(site)), keep_k.expand(n_classes, *shape).contiguous()
                )
            return result

        return Unit(sites, cut)

    order = {site: i for i, site in enumerate(channels.sites)}
    return tuple(unit(tuple(sorted(sites, key=order.__getitem__))) for sites in members.values())


def _scale(values: Tensor) -> float:
    return float(values.abs().mean().clamp_min(1e-12))


def _hottest(values: Tensor) -> Tensor:
    """(K, C, ...) -> (K, C), over the site's mean."""
    return values.reshape(*values.shape[:2], -1).amax(2) / _scale(values)
