"""What one class's images leave in an atlas for missions: samples and needs, added up.

The *need* of a layer's outputs, (M, M), is E[sum over places g g^T] as in ``search.evidence``, with
g the gradient of the class's own score less the mean of all the network's scores. A search for one
mission asks what its own scores feel; here the mission is not known yet, and what tells its classes
from each other is a part of what tells each of them from all others. So it does not matter which
other classes an atlas holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillnet.atlas import Moments
from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.channels import Channels
from distillnet.missions.records import places_in, record_at, records_of
from distillnet.missions.rows import pack_rows, places_of
from distillnet.refit.samples import outputs_at
from distillnet.refit.teacher import refittable

__all__ = ["PER_IMAGE", "Gathered", "Gatherer"]

PER_IMAGE = 20  # places that may become samples; more of one image tell little


@dataclass
class Gathered:
    """Of some images of one class; what adds up to what more of them give.

    Attributes:
        moments: of each neuron at its site.
        needs: by layer (M, M), float64, summed over images.
        keys: (R,) of the samples, ascending.
        rows: by record, int8 (R, D), and under ``NAME#scale`` float32 (R,).
        images: digests (n, 16) of their content; ``seen``, of where they lie on this machine.
    """

    moments: Moments
    needs: dict[str, Tensor]
    keys: Tensor
    rows: dict[str, Tensor]
    images: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)

    def add(self, other: "Gathered", samples: int) -> None:
        """Take in what other images of the class gave, and keep so many samples."""
        self.moments.add_moments(other.moments)
        for layer, need in other.needs.items():
            self.needs[layer] += need
        self.images += other.images
        self.seen += other.seen
        rows = {name: torch.cat([mine, other.rows[name]]) for name, mine in self.rows.items()}
        self.keep_first(torch.cat([self.keys, other.keys]), rows, samples)

    def keep_first(self, keys: Tensor, rows: dict[str, Tensor], samples: int) -> None:
        """Take the samples of the smallest keys."""
        order = torch.argsort(keys, stable=True)[:samples]
        self.keys = keys[order]
        self.rows = {name: values[order] for name, values in rows.items()}


class Gatherer:
    """Runs images of one class and gathers what they give.

    Args:
        label: the class, one of the network's.
        samples: to keep at most.
    """

    def __init__(self, graph: Graph, channels: Channels, label: int, samples: int) -> None:
        self.graph, self.label, self.samples = graph, label, samples
        self.sites = channels.sites
        self.records, self.layers = records_of(graph), refittable(graph)
        device = next(iter(graph.params.values())).device
        like = torch.zeros(0, dtype=torch.float64, device=device)
        self.gathered = Gathered(
            Moments(graph, channels.sites, device),
            {n.name: like.new_zeros(n.shape[0], n.shape[0]) for n in self.layers},
            torch.zeros(0, dtype=torch.int64),
            {},
        )
        self._empty()

    def _empty(self) -> None:
        rows = self.gathered.rows
        for record in self.records:
            rows[record.name] = torch.zeros(0, record.width, dtype=torch.int8)
            rows[f"{record.name}#scale"] = torch.zeros(0)

    def add(self, x_nchw: Tensor, digests: Sequence[bytes]) -> None:
        """Take in images, with a digest of each one's content."""
        graph, done = self.graph, self.gathered
        keys_np, at_np2 = places_of(digests, PER_IMAGE)
        chosen = keys_np.flatten()
        least = done.keys[-1] if len(done.keys) >= self.samples else None
        chosen_r = (
            torch.arange(len(chosen)) if least is None else torch.nonzero(chosen < least)[:, 0]
        )
        wanted = {record.source for record in self.records} | set(self.sites)
        values: dict[str, Tensor] = {}
        felt = [layer.name for layer in self.layers]

        def observe(name: str, y: Tensor) -> None:
            if name in wanted or name in felt:
                values[name] = y

        device = done.needs[felt[0]].device if felt else x_nchw.device
        x = fast_layout(x_nchw.to(device)).detach().requires_grad_()
        with torch.enable_grad():
            scores = run(graph, {graph.input.name: x}, observe=observe)[graph.output]
            own = (scores[:, self.label] - scores.mean(1)).sum()
            slopes = torch.autograd.grad(own, [values[f] for f in felt], allow_unused=True)
        at = at_np2.to(device)
        with torch.no_grad():
            for layer, slope in zip(self.layers, slopes, strict=True):
                if slope is not None:
                    self._add_need(layer.name, slope, layer.shape, at)
            rows = dict(done.rows)
            for record in self.records:
                mine = record_at(graph, record, values[record.source].detach(), at)
                packed, scale = pack_rows(mine[chosen_r.to(device)])
                rows[record.name] = torch.cat([rows[record.name], packed.cpu()])
                rows[f"{record.name}#scale"] = torch.cat(
                    [rows[f"{record.name}#scale"], scale.cpu()]
                )
            for site in self.sites:
                done.moments.add(site, values[site].detach())
        done.moments.n += len(x)
        done.images += digests
        done.keep_first(torch.cat([done.keys, chosen[chosen_r]]), rows, self.samples)

    def _add_need(self, layer: str, slope: Tensor, shape: Sequence[int], at: Tensor) -> None:
        if slope.ndim == 2:
            g, weight = slope.double(), 1.0
        else:
            g = outputs_at(slope, places_in(shape, at)).double()
            weight = math.prod(shape[1:]) / at.shape[1]
        self.gathered.needs[layer].addmm_(g.T, g, alpha=weight)
