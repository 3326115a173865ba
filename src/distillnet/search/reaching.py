"""The way of ``best`` where a ratio is to be reached, whatever it costs."""

import math
from collections.abc import Sequence

from distillnet.cut.cost import cost
from distillnet.images.preprocessing import Size
from distillnet.refit.compensation import with_biases
from distillnet.search.allocation import Cut, channel_plan
from distillnet.search.beliefs import Key
from distillnet.search.explorer import TRIALS, Explorer

__all__ = ["Reach"]


class Reach(Explorer):
    """Which candidates to make where sizes compare by divergence alone."""

    def choose(self, sizes: Sequence[Size]) -> Key:
        """The candidate of least divergence that reaches the ratio asked for.

        From the middle of the sizes (falling) towards less divergence, until it grows again: for a
        larger image the network has to be cut further, and a smaller one shows less.
        """
        if self.budget.target_params:
            sizes = sizes[:1]  # a smaller image needs no fewer
        at = len(sizes) // 2
        self.workshop.go_to(sizes[at])
        tried: dict[int, float] = {}

        def divergence(i: int) -> float:
            if i not in tried:
                tried[i] = self._reach_at(sizes[i])
                self.on_progress(min(len(tried), TRIALS - 2), TRIALS)
            return tried[i]

        last = len(sizes) - 1
        while True:
            if math.isinf(divergence(at)) and at < last:
                beside = at + 1
            else:
                near = [i for i in (at + 1, at - 1) if 0 <= i <= last]
                beside = min([at, *near], key=divergence)
            if beside == at:
                break
            at = beside
        self.missed = math.isinf(tried[at])
        best = min(self.done, key=self._work_of) if self.missed else (sizes[at], 0)
        self._validate(best)
        return best

    def _reach_at(self, size: Size) -> float:
        """The divergence of the candidate that reaches the ratio at a size; inf where none does."""
        workshop, budget = self.workshop, self.budget
        workshop.go_to(size)
        here, fitted = workshop.here, with_biases(workshop.here.graph)
        total = cost(workshop.original.graph, workshop.original.channels)

        def enough(cut: Cut) -> bool:
            plan = channel_plan(here.graph, here.channels, cut, workshop.mission.indices)
            left = cost(fitted, here.channels, plan)
            if budget.target_macs:
                return total.macs / left.macs >= budget.target_macs
            return total.params / left.params >= (budget.target_params or 1)

        candidate = workshop.make(enough)
        self.done[size, 0] = candidate or workshop.make_smallest()
        self._forget_weights()
        self._tell_front()
        return math.inf if candidate is None else candidate.verdict.divergence
