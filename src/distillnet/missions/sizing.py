"""A network that was cut and fitted at one input size, taken to another.

An atlas holds what the network does with images of its own size. Where it ends in a global pool,
its weights fit any size, and a smaller input is one more cut, which costs some networks less than
thinner layers do.
"""

from dataclasses import replace

from distillnet.cut.plan import Plan
from distillnet.graph import Graph
from distillnet.refit.compensation import with_biases

__all__ = ["network_at", "plan_at"]


def plan_at(plan: Plan, graph: Graph) -> Plan:
    """A plan of whole channels for the same network at another size."""
    keep = {}
    for site, map_ in plan.keep.items():
        shape = graph[site].shape
        whole = map_.reshape(len(map_), -1).any(1)
        keep[site] = whole.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    return replace(plan, keep=keep)


def network_at(fitted: Graph, graph: Graph) -> Graph:
    """The weights of one graph, biases of its own included, in a graph at another size."""
    return replace(with_biases(graph), params=dict(fitted.params))
