"""What a threshold applies to: one site's neurons, or the channels of sites that are tied."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillnet.cut.bitmaps import bitmap, fuse, quantile_threshold
from distillnet.engine.ordering import alike_together
from distillnet.engine.packing import blocks_at_once
from distillnet.engine.steps import BLOCK
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.search.scores import Score

__all__ = ["Cut", "Unit", "block_units", "channel_units", "neuron_units"]

# Shares at which maps of a site are compared to find the channels that go together.
_COMPARED = (0.3, 0.5, 0.7, 0.85)


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


def block_units(channels: Channels, score: Score) -> tuple[Unit, ...]:
    """One unit a site, cut place by place for as many channels as the C engine computes together.

    Channels whose maps are alike make a block before any threshold is fixed; a place of a block has
    the mean score of its channels there. So what goes is skipped, and not just set to zero.
    """

    def unit(site: str) -> Unit:
        blocks: list[Tensor] = []

        def cut(share: float) -> dict[str, Cut]:
            values = score(site)
            if not blocks:
                blocks.extend(_blocks(values))
            of_block = torch.stack([values[:, block].mean(1) for block in blocks], 1)
            threshold = quantile_threshold(of_block, share)
            keep_k = torch.empty(values.shape, dtype=torch.bool)
            for block, stays in zip(blocks, bitmap(of_block, threshold).unbind(1), strict=True):
                keep_k[:, block] = stays[:, None]
            return {site: Cut(threshold, keep_k)}

        return Unit((site,), cut)

    return tuple(unit(site) for site in channels.sites)


def _blocks(values: Tensor) -> list[Tensor]:
    """Channels that are computed together, indices by block, for scores (K, C, H, W) or (K, F)."""
    n, places = values.shape[1], values[0, 0].numel()
    if places == 1:  # a neuron is a channel there, and goes as a whole
        return list(torch.arange(n)[:, None])
    hottest = values.amax(0).reshape(n, -1)
    ranked = hottest.flatten().sort().values
    levels = [ranked[int(share * (len(ranked) - 1))] for share in _COMPARED]
    maps = torch.cat([hottest > level for level in levels], 1).numpy()
    order, blocks, first = torch.from_numpy(alike_together(maps)), [], 0
    for count in blocks_at_once(places, -(-n // BLOCK)):
        blocks.append(order[first : first + count * BLOCK])
        first += count * BLOCK
    return blocks


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
