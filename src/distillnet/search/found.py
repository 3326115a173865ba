"""What a search returns."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.search.decision import Estimate, estimate
from distillnet.search.judge import Verdict

__all__ = ["Found", "front_of"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """A plan, the network to carry it out on, and what the search saw on its own images.

    Attributes:
        thresholds: TH_l by site, where the search has thresholds.
        class_bitmaps: by site, bool (K, ...); fused they are plan.keep. Empty where the search
            looks at the mission as a whole.
        seen: whether the original seems to have been trained on the search images; see
            ``known.knows``.
        met: whether the budget was met with anything removed at all.
        graph: with the weights, and at the input size, that the plan belongs to.
        stopped_by: what kept the search from a smaller network, in words.
        front: the best networks at other losses, the smallest first; empty where the search keeps
            none. Their own fronts are empty.
        work: what is left of MACs, or of what stands for time, where the search counts it.
        tuned: the compact network, with all scores, after a training that the search knows nothing
            of (``job.tuning``); None where its weights are those of ``graph``.
        without: ``graph`` fitted without some of the statistics and search images, bool (N,), so
            that they can tell what becomes of it; None where the search fits no weights.
    """

    plan: Plan
    thresholds: Mapping[str, float]
    class_bitmaps: Mapping[str, Tensor]
    verdict: Verdict
    met: bool
    graph: Graph
    front: tuple["Found", ...] = ()
    seen: bool = False
    stopped_by: str = ""
    work: float = math.inf
    tuned: Graph | None = None
    without: Callable[[Tensor], Graph] | None = field(default=None, repr=False, compare=False)

    @property
    def expected(self) -> Estimate:
        """What the search expects the network to lose on images that nobody has seen."""
        return estimate(self.verdict)

    def compact(self, *, all_scores: bool = False) -> Graph:
        """The network that is found, with the mission's scores or with all."""
        outputs = None if all_scores else self.plan.outputs
        if self.tuned is not None:
            return compact(self.tuned, analyse(self.tuned), Plan(outputs=outputs))
        plan = replace(self.plan, outputs=outputs)
        return compact(self.graph, analyse(self.graph), plan)

    def compact_without(self, held_out_n: Tensor) -> Graph:
        """The compact network, with all scores, fitted without some images, bool (N,)."""
        graph = self.graph if self.without is None else self.without(held_out_n)
        return compact(graph, analyse(graph), replace(self.plan, outputs=None))

    def to(self, device: str) -> "Found":
        """The same with its networks on another device; its front stays where it is."""
        tuned = None if self.tuned is None else self.tuned.to(device)
        return replace(self, graph=self.graph.to(device), tuned=tuned)


def front_of(
    networks: Iterable[_T], harm: Callable[[_T], tuple[float, float]], work: Callable[[_T], float]
) -> list[_T]:
    """Those that no other beats in both work and harm, the smallest first.

    >>> work, harm = {"a": 1, "b": 2, "c": 3}, {"a": (2.0, 0.0), "b": (2.0, 1.0), "c": (1.0, 0.0)}
    >>> front_of("abc", harm.__getitem__, work.__getitem__)
    ['a', 'c']
    """
    best: list[_T] = []
    for network in sorted(networks, key=lambda network: (work(network), harm(network))):
        if not best or harm(network) < harm(best[-1]):
            best.append(network)
    return best
