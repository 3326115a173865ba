"""Evaluate a network again and again with one place masked differently, from that place on.

A search tries many masks at one site before it goes on to the next. What lies before the site does
not change, nor do branches beside it: their values are kept for all images, and only what depends
on the site is computed again.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distillnet.graph.graph import Graph, consumers, dependents, fast_layout, images_at_once, run

__all__ = ["Replay", "masked_scores"]

_AT_ONCE = 16  # images, on a CPU


class Replay:
    """Values of a network on fixed images, rolled forward from site to site.

    All values alive at the current site lie in memory: about 4 bytes x images x their sum.

    Args:
        x_nchw: the images.
        background: keep maps of other sites, masked all the while.
        batch_size: images computed at once; by default as many as suit the device.
    """

    def __init__(
        self,
        graph: Graph,
        x_nchw: Tensor,
        background: Mapping[str, Tensor] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.graph = graph
        self.background = _masks(graph, background or {})
        self.order = {node.name: i for i, node in enumerate(graph.nodes)}
        self.readers = consumers(graph)
        self.live: list[dict[str, Tensor]] = [
            {graph.input.name: fast_layout(part)} for part in _parts(graph, x_nchw, batch_size)
        ]
        self.here: list[dict[str, Tensor]] = []
        self.site = ""  # the first of the sites that are masked now
        self.sites: frozenset[str] = frozenset()

    def go_to(self, sites: Sequence[str]) -> None:
        """Move on to ``sites``, which will be masked together; the first is not behind the last.

        Raises:
            ValueError: the first of the sites has been passed already.
        """
        first = min(sites, key=self.order.__getitem__)
        position = self.order[first]
        if self.site and position < self.order[self.site]:
            raise ValueError(f"{first!r} comes before {self.site!r}; go through sites in order")
        alive = [
            node.name
            for node in self.graph.nodes[: position + 1]
            if node.name == first
            or any(self.order[reader.name] > position for reader in self.readers[node.name])
        ]
        changed = set().union(*(dependents(self.graph, site) for site in sites))
        beside = {
            name
            for node in self.graph.nodes
            if node.name in changed - {first}
            for name in node.inputs
            if name not in changed
        } | {first}
        others = {s: mask for s, mask in self.background.items() if s not in sites}
        with torch.inference_mode():
            for i, values in enumerate(self.live):
                if self.site in others:  # the site left behind goes back to its background
                    values[self.site] = values[self.site] * others[self.site]
                self.live[i] = run(self.graph, values, alive, masks=others)
            self.here = [run(self.graph, values, beside, masks=others) for values in self.live]
        self.site, self.sites = first, frozenset(sites)

    def stays(self, keep: Mapping[str, Tensor]) -> None:
        """Mask these of the current sites, or of later ones, from the next ``go_to`` on."""
        self.background.update(_masks(self.graph, keep))

    def scores(self, keep: Mapping[str, Tensor]) -> Tensor:
        """The network's scores (N, classes) with the current sites masked by ``keep``.

        Args:
            keep: by site, (C, H, W) or (F,); a site without one is left as it is.
        """
        masks = _masks(self.graph, keep)
        others = {s: mask for s, mask in self.background.items() if s not in self.sites}
        later = others | {s: mask for s, mask in masks.items() if s != self.site}
        parts = []
        with torch.inference_mode():
            for values in self.here:
                value = values[self.site]
                if self.site in keep:
                    value = value * masks[self.site]
                known = values | {self.site: value}
                parts.append(run(self.graph, known, masks=later)[self.graph.output])
        return torch.cat(parts)


def masked_scores(
    graph: Graph, x_nchw: Tensor, keep: Mapping[str, Tensor], batch_size: int | None = None
) -> Tensor:
    """The scores (N, classes) of all images with every site masked by ``keep``."""
    masks = _masks(graph, keep)
    with torch.inference_mode():
        return torch.cat(
            [
                run(graph, {graph.input.name: fast_layout(part)}, masks=masks)[graph.output]
                for part in _parts(graph, x_nchw, batch_size)
            ]
        )


def _parts(graph: Graph, x_nchw: Tensor, batch_size: int | None) -> tuple[Tensor, ...]:
    """Images that are computed together."""
    return x_nchw.split(batch_size or images_at_once(graph, x_nchw.device, _AT_ONCE))


def _masks(graph: Graph, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep maps on the graph's device, in the layout of the values they are multiplied onto."""
    device = next(iter(graph.params.values())).device
    return {site: fast_layout(bits.to(device)) for site, bits in keep.items()}
