"""Which candidates to make next, and which to return: the way of ``best``.

What candidates lose is a curve over the input size and how far the network is cut at that size
(``beliefs``), and each that is made tells more of it. The next one is where most is to be hoped
for: how likely it would seem to be within the budget, times how many steps less it would leave to
do than the best so far. One that may be within the budget is cross-validated as it is made where
little is known of how much fitted images flatter; the best is in any case, before it is returned.
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
from distillnet.search.decision import is_within, likelihood, objection
from distillnet.search.found import Found, front_of
from distillnet.search.judge import Verdict

__all__ = ["TRIALS", "Explorer", "Progress"]

_STEP = 1.06  # between neighbouring numbers of MACs
_STRIDE = 12  # of those steps: so far beyond the best a candidate may be
_FIRST = 21  # steps: 3.4 times fewer MACs
# Steps that have to be hoped for, to make a candidate; while none is within the budget.
_WORTH, _DESPERATE = 0.5, 0.15
# Tries, candidates and cross-validations, after which more has to be hoped for: twice as much after
# each so many. Where losses hardly grow with what is cut, a search goes on for hours else.
_PATIENT, _TWICE = 20, 5
# How likely within the budget one has to be at least and at most to be validated as it is made, and
# how little has to be known of how much fitted images flatter it.
_HOPE, _SURE, _VAGUE_PP = 0.5, 0.9, 0.3
TRIALS, _MOST = 20, 30  # about as many candidates are tried, for progress only; at most
_MOST_VALIDATED = 12

Progress = Callable[[int, int], None]


def _part(workshop: Workshop) -> float:
    """How much of what a cross-validation finds beyond fitted images counts.

    What the original knows by heart of images it was trained on, a network that is cut and fitted
    without them has lost; of other images there was nothing to lose. So of known images half as
    much counts, and none where they are many: what fitted images hide is corrected without it
    (``known``). Nor does any count where other images judge than those that are fitted on.
    """
    if not workshop.flattering:
        return 0.0
    if workshop.seen:
        return 0.5 if workshop.few else 0.0
    return 1.0 if workshop.few else 0.5


class Explorer:
    """Which candidates to make; ``done`` holds them by input size and number of MACs."""

    def __init__(self, workshop: Workshop, budget: Budget, on_progress: Progress) -> None:
        self.workshop, self.budget, self.on_progress = workshop, budget, on_progress
        self.seen = workshop.seen
        self.done: dict[Key, Candidate] = {}
        self.impossible: dict[Size, int] = {}  # the least level that cannot be made
        self.beliefs = Beliefs(
            budget,
            part=_part(workshop),
            seen=workshop.seen,
            flattering=workshop.flattering,
            n_fitted=workshop.n_fitted,
            own_size=workshop.original_size,
            labels=workshop.labels is not None and not workshop.seen,
        )
        self.uncut: dict[Size, float] = {}  # work
        self.missed = self.broken_off = False  # a target that cannot be reached; the search
        self.told = math.inf  # the least work that was told of
        self.before = 0, 0  # candidates and cross-validations of other budgets

    def spend(self, budget: Budget) -> None:
        """Go on with another budget; what was made and validated for the last one stays known."""
        self.budget, self.told, self.missed = budget, math.inf, False
        self.beliefs.spend(budget)
        self.before = len(self.done), len(self.validated)

    def choose(self, sizes: Sequence[Size]) -> Key | None:
        """The candidate of fewest MACs within the budget, None where there is none."""
        coarse = sizes[::2]
        first = coarse[len(coarse) // 2]  # neither the largest nor the smallest
        if not self.done:
            self.workshop.go_to(first)  # where the orders are measured
            self._try(first, _FIRST)
        made, crossed = self.before
        while len(self.validated) < crossed + _MOST_VALIDATED:
            place = self._most_promising(sizes) if len(self.done) < made + _MOST else None
            if place is not None:
                self._try(*place)
                continue
            doubted = self._smallest_so_far() or self._likeliest()
            if doubted is None or doubted in self.validated:
                break
            self._validate(doubted)
        return self._smallest(self.validated)

    def _most_promising(self, sizes: Sequence[Size]) -> Key | None:
        """The size and level of which most is to be hoped for; None where it is not worth it."""
        best = self._smallest_so_far()
        base = 0 if best is None else self._level_of(self._work_of(best))
        tried = [self._level_of(self._work_of(key)) for key in self.done]
        top = max(tried, default=_FIRST) - 1 if best is None else base + _STRIDE
        impatience = 2.0 ** (max(0, self._tried() - _PATIENT) / _TWICE)
        most, place = _DESPERATE if best is None else _WORTH * impatience, None
        for size in sizes:
            levels = self._levels(size, base, top)
            if not levels:
                continue
            chances = self.beliefs.chances(size, [_STEP**level for level in levels])
            hopes = chances * (np.array(levels) - base)
            if hopes.max() > most:
                most, place = float(hopes.max()), (size, levels[int(hopes.argmax())])
        return place

    def _levels(self, size: Size, above: int, top: int) -> list[int]:
        """Levels at a size that nobody has tried, up to ``top``."""
        uncut = self._level_of(self._work_of_uncut(size))
        least = max(above, uncut if (size, 0) in self.done else uncut - 1) + 1
        end = min(top + 1, self.impossible.get(size, top + 1))
        return [level for level in range(least, end) if (size, level) not in self.done]

    def _likeliest(self) -> Key | None:
        """Of those that were not validated the one that is most likely within the budget."""
        keys = [key for key in self.done if key not in self.validated]
        return max(keys, key=self._likely, default=None)

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
        self._note(key)
        crossed = self.workshop.cross_validate(candidate) if self.beliefs.part else None
        self.beliefs.validate(key, crossed)
        self._tell_progress()

    def _note(self, key: Key) -> None:
        candidate = self.done[key]
        self.beliefs.add(key, candidate.verdict, self.workshop.work / candidate.work)

    def verdict(self, key: Key) -> Verdict:
        """What is believed of a candidate."""
        self._note(key)
        return self.beliefs.of(key)

    def _smallest_so_far(self) -> Key | None:
        return self._smallest(self.done)

    def _smallest(self, of: Iterable[Key]) -> Key | None:
        """The smallest within the budget."""
        return min(filter(self._allows, of), key=self._size_of, default=None)

    def _size_of(self, key: Key) -> tuple[float, float]:
        return self.done[key].work, self.done[key].verdict.divergence

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

    def _work_of_uncut(self, size: Size) -> float:
        """About what is left of the network uncut at a size, which is known once it was there."""
        pixels = math.prod(size) / math.prod(self.workshop.original_size)
        return self.uncut.get(size, self.workshop.work * pixels)

    def _try(self, size: Size, level: int) -> None:
        """Make the candidate with the MACs that a level allows, where there is one."""
        allowed = self._allowed(level)
        if self._uncut_work(size) <= allowed:
            level = 0  # the size alone gets there: one candidate for all such levels
        key = size, level
        if key in self.done:
            return
        self.workshop.go_to(size)
        candidate = self.workshop.make(lambda cut: self.workshop.work_left(cut) <= allowed)
        if candidate is None:
            self.impossible[size] = level
            return
        self.done[key] = candidate
        self._note(key)
        if self._is_in_doubt(key):
            self._validate(key)
        self._forget_weights()
        self._tell_progress()
        self._tell_front()
        self._tell_best()

    def _is_in_doubt(self, key: Key) -> bool:
        """Whether it may be within the budget or not, for too little is known of its like."""
        if self.beliefs.vague_pp(key) <= _VAGUE_PP or self._likely(key) > _SURE:
            return False
        hope = replace(self.budget, confidence=min(_HOPE, self.budget.confidence))
        return is_within(hope, self.verdict(key))

    def _likely(self, key: Key) -> float:
        return likelihood(self.budget, self.verdict(key))

    def _tell_progress(self) -> None:
        self.on_progress(min(self._tried(), TRIALS - 2), TRIALS)

    def _tried(self) -> int:
        return len(self.done) + len(self.validated) - sum(self.before)

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
        """What speaks against the likeliest smaller network that was tried."""
        if self.broken_off:
            return "an interruption"
        if self.budget.has_target:
            return "the ratio that was to be reached"
        most = math.inf if chosen is None else self._work_of(chosen)
        smaller = [k for k in self.done if self._work_of(k) < most and not self._allows(k)]
        if not smaller:
            return "the lack of anything smaller"
        key = max(smaller, key=self._likely)
        (height, width), reason = key[0], objection(self.budget, self.verdict(key))
        # In what the search counts, which may be time; MACs may tell another order.
        own = 1.0 if chosen is None else self._ratio(chosen)
        beside = f"{self._ratio(key):.2f} times less work, this one {own:.2f}"
        return f"the best smaller network at {height}x{width} ({beside}): {reason}"

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
