"""Random plans and the comparisons that surgery has to stand, for any network."""

import torch
from torch import Tensor

from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.graph import Graph, run
from distillnet.graph.channels import Channels, analyse

__all__ = ["STYLES", "check_plan", "deviation", "random_plan", "scores"]

STYLES = ("channels", "partial", "borders", "everything")


def scores(graph: Graph, x: Tensor) -> Tensor:
    return run(graph, {graph.input.name: x})[graph.output]


def deviation(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite when shapes differ."""
    if got.shape != want.shape:
        return float("inf")
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-300))


def random_plan(graph: Graph, channels: Channels, style: str, seed: int) -> Plan:
    """A plan that removes whole classes of channels and what ``style`` says besides.

    ``everything`` empties whole layers. The mission's scores are in no order.
    """
    generator = torch.Generator().manual_seed(seed)

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) < share

    kept = ~chance(0.4, channels.count)  # by class, so that all sites of a class agree
    keep = {}
    for site in channels.sites:
        shape = graph[site].shape
        whole = kept[torch.from_numpy(channels.of[site])]
        bits = whole.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
        if style == "partial":
            bits &= ~chance(0.3, *shape)
        elif style == "borders" and len(shape) == 3:
            bits[:, 0], bits[:, -1], bits[:, :, 0], bits[:, :, -1] = False, False, False, False
        elif style == "everything" and bool(chance(0.6, 1)):
            bits &= False
        if style == "partial" and bool(chance(0.2, 1)):
            continue  # a site that the plan leaves alone
        keep[site] = bits
    n_scores = graph[graph.output].shape[0]
    mission = torch.randperm(n_scores, generator=generator)[: max(2, n_scores // 2)]
    return Plan(keep, tuple(mission.tolist()))


def check_plan(graph: Graph, channels: Channels, plan: Plan, x: Tensor) -> Graph:
    """Compact equals mask, and the planned cost equals the compact network's; returns it."""
    assert plan.outputs is not None
    small = compact(graph, channels, plan)
    want = scores(mask(graph, plan), x)[:, list(plan.outputs)]
    assert deviation(scores(small, x), want) < 1e-9
    by_run = run(graph, {graph.input.name: x}, masks=plan.keep)[graph.output]
    assert deviation(by_run[:, list(plan.outputs)], want) < 1e-12
    for node in small.nodes:
        assert 0 not in node.shape
    planned, real = cost(graph, channels, plan), cost(small, analyse(small))
    assert (planned.params, planned.macs) == (real.params, real.macs)
    assert planned.macs_with_partial == real.macs_with_partial
    values: dict[str, Tensor] = {}
    run(small, {small.input.name: x[:1]}, observe=lambda name, y: values.update({name: y}))
    assert all(values[n.name].shape[1:] == n.shape for n in small.nodes[1:])
    return small
