"""Which candidates to make next, and which to return: the way of ``best``.

Fitted images tell which candidates to make, and cross-validation is asked of the smallest at last.
Where images are few the way is another; see ``few``.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from distillnet.cut.plan import Plan
from distillnet.images.preprocessing import Size
from distillnet.search.allocation import Cut
from distillnet.search.beliefs import Beliefs, Key
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate, Workshop
from distillnet.search.decision import is_within, objection, room
from distillnet.search.found import Found, front_of
from distillnet.search.judge import Verdict

__all__ = ["TRIALS", "Explorer", "Progress"]

_STEP = 1.06  # between neighbouring numbers of MACs
_STRIDE, _FINE = 8, 2  # of those steps, at most and at least; the best size is refined to one step
_GROWTH = 0.1  # of the log of the expected loss, by step
_FIRST = 21  # steps: 3.4 times fewer MACs
TRIALS = 20  # about as many candidates are tried; for progress only

_VALIDATIONS = 3  # after so many, no smaller candidate is made any more
_REFUSALS = 4  # after so many by cross-validation at last, larger ones are made
_RETREATS = 3  # of those, at an input size

Progress = Callable[[int, int], None]


class Explorer:
    """Which candidates to make; ``done`` holds them by input size and number of MACs."""

    def __init__(self, workshop: Workshop, budget: Budget, on_progress: Progress) -> None:
        self.workshop, self.budget, self.on_progress = workshop, budget, on_progress
        self.seen = workshop.seen
        self.done: dict[Key, Candidate] = {}
        self.impossible: set[Key] = set()
        self.beliefs = Beliefs(
            few=workshop.few,
            seen=workshop.seen,
            n_fitted=workshop.n_fitted,
            own_size=workshop.original_size,
        )
        self.uncut: dict[Size, float] = {}  # work
        self.missed = self.broken_off = False  # a target that cannot be reached; the search
        self.told = math.inf  # the least work that was told of

    def smallest(self, sizes: Sequence[Size]) -> Key | None:
        """The candidate of fewest MACs within the budget, None where there is none."""
        coarse = sizes[::2]
        first = len(coarse) // 2  # neither the largest nor the smallest
        self.workshop.go_to(coarse[first])  # where the orders are measured
        self.workshop.choose_teacher()
        level = self._climb(coarse[first], _FIRST)
        for way in (coarse[first + 1 :], coarse[first - 1 :: -1] if first else ()):
            for size in way:
                if level is None:  # nothing fits here: less so at smaller sizes, perhaps at larger
                    if size > coarse[first]:
                        level = self._climb(size, _STRIDE)
                    continue
                if self._fits(size, level + _FINE):
                    level = self._climb(size, level + _FINE)
                elif size < coarse[first]:  # what is lost grows as sizes fall
                    break
        if level is not None:
            self._refine(sizes, level)
        return self._confirmed()

    def _confirmed(self) -> Key | None:
        """The smallest that is within the budget by cross-validation, too."""
        refused = 0
        while (best := self._smallest_so_far()) not in self.validated:
            if best is None or refused == _REFUSALS:
                return self._smallest(self.validated) or self._retreat()
            self._validate(best)
            if not self._allows(best):
                refused += 1
            elif len(self.validated) < _VALIDATIONS:
                self._climb(best[0], best[1] + _FINE)  # what is flattered less may go further
        return best

    def _retreat(self) -> Key | None:
        """Something larger, where cross-validation was against all that it was asked of.

        Halfway to the uncut network, and so on: fitted images told nothing. First at that input
        size, which may itself be to blame, then at the network's own.
        """
        refused = max(self.validated, key=self._work_of, default=None)
        if refused is None:  # nothing ever fitted
            return None
        refused_work = self._work_of(refused)
        for size in dict.fromkeys((refused[0], self.workshop.original_size)):
            low, high = self._level_of(self._uncut_work(size)), self._level_of(refused_work)
            for _ in range(_RETREATS):
                level = (low + high) // 2
                if level <= low or self._try(size, level) is None:
                    break
                self._validate((size, level))
                low, high = (level, high) if self._allows((size, level)) else (low, level)
            if (found := self._smallest(self.validated)) is not None:
                return found
        return None

    def best_so_far(self) -> Key | None:
        """The smallest tried that is within the budget, where the search is broken off."""
        self.broken_off = True
        while (best := self._smallest_so_far()) is not None and best not in self.validated:
            self._validate(best)
        return best

    @property
    def validated(self) -> Mapping[Key, Verdict]:
        """Verdicts by cross-validation."""
        return self.beliefs.validated

    def _validate(self, key: Key) -> None:
        candidate = self.done[key]
        crossed = self.workshop.cross_validate(candidate)
        self.beliefs.add(key, candidate.verdict, crossed, candidate.work)
        self._tell_progress()

    def verdict(self, key: Key) -> Verdict:
        """What is believed of a candidate."""
        return self.beliefs.of(key, self.done[key].verdict)

    def _refine(self, sizes: Sequence[Size], level: int) -> None:
        """Try the sizes beside the best, and one last fine step.

        What was within the budget may be so no more: each further verdict tells of all.
        """
        best = self._smallest_so_far()
        if best is None:
            return
        at = list(sizes).index(best[0])
        for size in (*sizes[at + 1 : at + 2], *sizes[max(0, at - 1) : at]):
            if self._fits(size, level + 1):
                level = self._climb(size, level + 1) or level
        best = self._smallest_so_far()
        if best is not None:
            self._fits(best[0], level + 1)

    def _smallest_so_far(self) -> Key | None:
        return self._smallest(self.done)

    def _smallest(self, of: Iterable[Key]) -> Key | None:
        """The smallest within the budget."""
        return min(filter(self._allows, of), key=self._size_of, default=None)

    def _size_of(self, key: Key) -> tuple[float, float]:
        return self.done[key].work, self.done[key].verdict.divergence

    def _climb(self, size: Size, start: int) -> int | None:
        """The highest level that fits at a size, sought from ``start``; None where none does."""
        low, high, level = 0, math.inf, start
        while high - low > _FINE:
            fits = self._fits(size, level)
            low, high = (level, high) if fits else (low, level)
            step = self._steps_to_budget(size, level)
            step = max(step, _FINE) if fits else min(step, -_FINE)
            level = int(max(low + _FINE, min(level + step, high - _FINE)))
        return low or None

    def _steps_to_budget(self, size: Size, level: int) -> int:
        """By how many levels a candidate that was tried is away from the budget, about."""
        key = (size, level) if (size, level) in self.done else (size, 0)
        if key not in self.done:  # could not be made
            return -_STRIDE
        left = room(self.budget, self.verdict(key))
        steps = _FINE * round(math.log(left) / _GROWTH / _FINE) if left > 0 else -_STRIDE
        return max(-_STRIDE, min(steps, _STRIDE))

    def _fits(self, size: Size, level: int) -> bool:
        if self._uncut_work(size) <= self._allowed(level):
            level = 0  # the size alone gets there: one candidate for all such levels
        key = size, level
        return self._try(*key) is not None and self._holds(key)

    def _holds(self, key: Key) -> bool:
        """Whether a candidate that was made is within the budget, for all that is known by now."""
        return self._allows(key)

    def _allowed(self, level: int) -> float:
        """MACs, or what stands for time; level 0 is the network uncut at its own size."""
        return self.workshop.work / _STEP**level

    def _level_of(self, work: float) -> int:
        """The highest level that so many MACs are within."""
        return int(math.log(self.workshop.work / work, _STEP))

    def _uncut_work(self, size: Size) -> float:
        if size not in self.uncut:
            self.workshop.go_to(size)
            nothing = np.zeros(self.workshop.here.channels.count, dtype=bool)
            self.uncut[size] = self.workshop.work_left(Cut(nothing))
        return self.uncut[size]

    def _allows(self, key: Key) -> bool:
        return is_within(self.budget, self.verdict(key))

    def _try(self, size: Size, level: int) -> Candidate | None:
        """The candidate with the MACs that a level allows; None where it cannot be made."""
        if (size, level) in self.impossible:
            return None
        if (size, level) not in self.done:
            allowed = self._allowed(level)
            self.workshop.go_to(size)
            candidate = self.workshop.make(lambda cut: self.workshop.work_left(cut) <= allowed)
            if candidate is None:
                self.impossible.add((size, level))
                return None
            self.done[size, level] = candidate
            self._forget_weights()
            self._tell_progress()
            self._tell_front()
            self._tell_best()
        return self.done[size, level]

    def _tell_progress(self) -> None:
        self.on_progress(min(self._tried(), TRIALS - 2), TRIALS)

    def _tried(self) -> int:
        return len(self.done) + len(self.validated)

    def _tell_front(self) -> None:
        """Say which candidates no other beats so far."""
        points = [
            (self._ratio(key), self.verdict(key).estimate_pp, self._allows(key))
            for key in front_of(self.done, self._harm, self._work_of)
        ]
        self.workshop.store.on_front(points)

    def _tell_best(self) -> None:
        """Say so where the smallest network within the budget is smaller than it was."""
        best = self._smallest_so_far()
        if best is not None and self._work_of(best) < self.told:
            self.told = self._work_of(best)
            self.workshop.store.on_best(self._ratio(best), self.verdict(best).estimate_pp)

    def _forget_weights(self) -> None:
        """Let go of the weights of candidates that another beats in MACs and loss."""
        front = front_of(self.done, self._harm, self._work_of)
        for key, candidate in list(self.done.items()):
            if candidate.graph is not None and key not in front:
                self.done[key] = replace(candidate, graph=None)

    def finish(self, chosen: Key | None) -> Found:
        """What is returned: the chosen candidate refitted on all images, and the front."""
        if chosen is None:
            mission = self.workshop.mission
            same = Verdict(0.0, 0.0, (0.0,) * len(mission), 0.0)
            graph = self.workshop.original.graph
            why = self._stopped_by(None)
            nothing = Plan(outputs=mission.indices)
            found = Found(nothing, {}, {}, same, False, graph, seen=self.seen, stopped_by=why)
            found = replace(found, work=self.workshop.work)
            return replace(found, front=(*self._front(None), found))
        candidate = self.done[chosen]
        graph = self.workshop.refit_on_all(candidate)
        verdict, met = self.verdict(chosen), not self.missed
        found = Found(candidate.plan, {}, {}, verdict, met, graph, seen=self.seen)
        without = partial(self.workshop.refit_without, candidate)
        why = self._stopped_by(chosen)
        found = replace(found, stopped_by=why, work=candidate.work, without=without)
        return replace(found, front=self._front(chosen, found))

    def _stopped_by(self, chosen: Key | None) -> str:
        """What speaks against the next smaller network that was tried."""
        if self.broken_off:
            return "an interruption"
        if self.budget.has_target:
            return "the ratio that was to be reached"
        most = math.inf if chosen is None else self._work_of(chosen)
        smaller = [key for key in self.done if self._work_of(key) < most]
        if not smaller:
            return "the lack of anything smaller"
        key = max(smaller, key=self._work_of)
        (height, width), reason = key[0], objection(self.budget, self.verdict(key))
        return f"the next smaller network ({self._ratio(key):.2f}x at {height}x{width}): {reason}"

    def _front(self, chosen: Key | None, found: Found | None = None) -> tuple[Found, ...]:
        """The front, with the network that is returned in its place."""
        points = front_of(self.done, self._harm, self._work_of)
        if chosen is not None and chosen not in points:
            # One that is smaller and loses less on average, but too much of one class, beats it.
            points = sorted([*points, chosen], key=self._work_of)
        result = []
        for key in points:
            candidate, met, verdict = self.done[key], self._allows(key), self.verdict(key)
            if found is not None and key == chosen:
                result.append(found)
            elif candidate.graph is not None:
                made = Found(candidate.plan, {}, {}, verdict, met, candidate.graph, seen=self.seen)
                without = partial(self.workshop.refit_without, candidate)
                result.append(replace(made, work=candidate.work, without=without))
        return tuple(result)

    def _work_of(self, key: Key) -> float:
        return self.done[key].work

    def _ratio(self, key: Key) -> float:
        return self.workshop.work / self._work_of(key)

    def _harm(self, key: Key) -> tuple[float, float]:
        return self.verdict(key).estimate_pp, self.verdict(key).divergence
