"""What became of each layer: compression ratio and dormant densities, as the paper tabulates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.cut.bitmaps import complete_removal, compression_ratio, dormant_density
from distillnet.cut.plan import removed_classes
from distillnet.graph import Graph, consumers, run
from distillnet.graph.channels import Channels
from distillnet.search import Found

__all__ = ["LayerReport", "layer_reports"]


@dataclass(frozen=True)
class LayerReport:
    """What became of one site: neurons, thresholds and dormant densities (Eq. 7, 8, 13, 16)."""

    site: str
    threshold: float
    channels: int
    channels_removed: int
    neurons: int
    neurons_kept: int
    compression_ratio: float
    tau: float
    tau_prime: float


def layer_reports(
    graph: Graph, channels: Channels, found: Found, x_nchw: Tensor
) -> tuple[LayerReport, ...]:
    """Compression and dormant densities of every site, the latter on some of the search images."""
    values: dict[str, Tensor] = {}

    def keep_value(name: str, x: Tensor) -> None:
        if name in channels.sites:
            density = _density(graph, name, x, 0.0)
            dormant = _density(graph, name, x, max(found.thresholds.get(name, 0.0), 0.0))
            seen = values.get(name, torch.zeros(2))
            values[name] = torch.maximum(seen, torch.tensor([density, max(density, dormant)]))

    with torch.inference_mode():
        for part in x_nchw.split(10):
            run(graph, {graph.input.name: part}, observe=keep_value)
    gone = removed_classes(channels, found.plan)
    reports = []
    for site in channels.sites:
        keep = found.plan.keep.get(site, torch.ones(graph[site].shape, dtype=torch.bool)).cpu()
        tau, tau_prime = values[site].tolist()
        reports.append(
            LayerReport(
                site=site,
                threshold=found.thresholds.get(site, float("-inf")),
                channels=len(keep),
                channels_removed=int(
                    (complete_removal(keep).numpy() & gone[channels.of[site]]).sum()
                ),
                neurons=keep.numel(),
                neurons_kept=int(keep.sum()),
                compression_ratio=compression_ratio(keep),
                tau=tau,
                tau_prime=tau_prime,
            )
        )
    return tuple(reports)


def _density(graph: Graph, site: str, x: Tensor, threshold: float) -> float:
    kernel, stride = 1, 1
    for reader in consumers(graph)[site]:
        if reader.op == "conv":
            kernel = max(kernel, graph.params[reader.params["weight"]].shape[-1])
            stride = reader.attrs["stride"][0]
    return dormant_density(x, threshold, kernel, stride)
