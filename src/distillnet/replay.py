"""Evaluate a network again and again with one site masked differently, from that site on.

A search tries many masks at one site before it goes on to the next. What lies before the site does
not change, nor do branches beside it: their values are kept for all images, and only what depends
on the site is computed again.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distillnet.graph import Graph, consumers, dependents, run

__all__ = ["Replay"]


class Replay:
    """Values of a network on fixed images, rolled forward from site to site.

    Args:
        x_nchw: the images.
        batch_size: images computed at once; all values that are kept lie in memory, about
            4 bytes x images x the largest sum of values alive at once.
    """

    def __init__(self, graph: Graph, x_nchw: Tensor, batch_size: int = 50) -> None:
        self.graph = graph
        self.order = {node.name: i for i, node in enumerate(graph.nodes)}
        self.readers = consumers(graph)
        self.live: list[dict[str, Tensor]] = [
            {graph.input.name: part} for part in x_nchw.split(batch_size)
        ]
        self.here: list[dict[str, Tensor]] = []
        self.site = ""

    def go_to(self, site: str) -> None:
        """Move on to a site that comes later in the network."""
        position = self.order[site]
        alive = [
            node.name
            for node in self.graph.nodes[: position + 1]
            if node.name == site
            or any(self.order[reader.name] > position for reader in self.readers[node.name])
        ]
        changed = dependents(self.graph, site)
        beside = {
            name
            for node in self.graph.nodes
            if node.name in changed and node.name != site
            for name in node.inputs
            if name not in changed
        } | {site}
        with torch.inference_mode():
            for i, values in enumerate(self.live):
                self.live[i] = run(self.graph, values, alive)
            self.here = [run(self.graph, values, beside) for values in self.live]
        self.site = site

    def scores(self, keep: Tensor | None) -> Tensor:
        """The network's scores (N, classes) with the site masked by ``keep``, or as it is."""
        parts = []
        with torch.inference_mode():
            for values in self.here:
                value = values[self.site]
                known = values | {self.site: value if keep is None else value * keep}
                parts.append(run(self.graph, known)[self.graph.output])
        return torch.cat(parts)

    def fix(self, keep: Tensor) -> None:
        """Mask the site for good, for all that follows."""
        with torch.inference_mode():
            for values in self.live:
                values[self.site] = values[self.site] * keep


def scores(
    graph: Graph,
    x_nchw: Tensor,
    masks: Mapping[str, Tensor] | None = None,
    batch_size: int = 50,
) -> Tensor:
    """The scores (N, classes) of all images."""
    parts: Sequence[Tensor] = x_nchw.split(batch_size)
    with torch.inference_mode():
        return torch.cat(
            [run(graph, {graph.input.name: x}, masks=masks)[graph.output] for x in parts]
        )
