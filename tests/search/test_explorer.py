"""Which candidates a search makes, where what they lose is known by a formula."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distillnet.cut.plan import Plan
from distillnet.search.allocation import Cut
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate
from distillnet.search.explorer import Explorer
from distillnet.search.judge import Verdict
from distillnet.search.reaching import Reach
from distillnet.search.store import NOWHERE
from selection import exhaustive

_SIZE, _WORK = (8, 8), 100.0
Loss = Callable[[float], float]  # points, by how many times less there is to do


class _Workshop:
    """Makes any candidate that is asked for, to a tenth of a percent of the work."""

    def __init__(self, fitted: Loss, crossed: Loss, *, few: bool = False) -> None:
        self.fitted, self.crossed = fitted, crossed
        self.work, self.original_size, self.store = _WORK, _SIZE, NOWHERE
        self.seen, self.labels = False, None
        self.n_fitted, self.few, self.flattering = 200, few, True
        self.here = SimpleNamespace(channels=SimpleNamespace(count=1))

    def go_to(self, size: object) -> None:
        pass

    def work_left(self, cut: float | Cut) -> float:
        return cut if isinstance(cut, float) else _WORK

    def make(self, enough: Callable[[float], bool]) -> Candidate:
        work = next(w for w in torch.linspace(_WORK, 0.1, 1000).tolist() if enough(w))
        verdict = _verdict(self.fitted(_WORK / work))
        return Candidate(_SIZE, Plan(), None, work, torch.zeros(1), verdict)

    def cross_validate(self, candidate: Candidate) -> Verdict:
        return _verdict(self.crossed(_WORK / candidate.work))


def _verdict(loss: float) -> Verdict:
    return Verdict(
        loss, loss, (loss,), 0.0, estimate_pp=loss, estimate_uncertain_pp=0.2,
        class_estimates_pp=(loss,), original_wrong_pp=2.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fitted", "crossed", "least", "most"),
    [
        # Both agree: a point is lost at 5x.
        (lambda r: r / 5, lambda r: r / 5, 3.5, 5.0),
        # Fitted images tell nothing, and nothing that was made at first holds: 2x would.
        (lambda r: 0.0 if r < 6 else 8.0, lambda r: 0.0 if r < 2 else 8.0, 1.3, 2.0),
        (lambda r: -1.0 if r < 6 else 8.0, lambda r: -1.0 if r < 1.4 else 8.0, 1.12, 1.4),
        # They tell a little less at each step, and each step but small ones is refused.
        (lambda r: 0.1 * r - 0.6, lambda r: 0.1 * r - 0.6 if r < 2.5 else 9.0, 1.7, 2.5),
    ],
)
def test_the_smallest_is_found_that_cross_validation_is_for(
    fitted: Loss, crossed: Loss, least: float, most: float
) -> None:
    told: list[int] = []
    search = Explorer(_Workshop(fitted, crossed), Budget(1.0), lambda done, of: told.append(done))  # type: ignore[arg-type]
    chosen = search.choose([_SIZE])
    assert chosen is not None
    assert least <= _WORK / search.done[chosen].work <= most
    assert told == sorted(told)
    assert len(search.validated) <= 9, "each takes as long as several candidates"


def _unlucky(ratio: float) -> float:
    """A point is lost at 10x; candidates of 5.2x to 5.9x seem to lose it, too."""
    return 1.0 if 5.2 < ratio < 5.9 else ratio / 10


def _hopeful(ratio: float) -> float:
    """From 2x on 0.94 +- 0.29 points are expected: not sure to be one point, but it may be."""
    return 0.5 if ratio < 2 else 0.65 if ratio < 5 else 9.0


@pytest.mark.parametrize(
    ("fitted", "crossed", "many", "few"),
    [
        # A point is lost at 10x by images that were fitted, at 2.5x by others, at 4x by both:
        # where images are few, the others count alone.
        (lambda r: r / 10, lambda r: 2 * r / 5, (2.8, 4.0), (1.75, 2.5)),
        # They are asked of what may be within the budget, too.
        (_hopeful, lambda r: 0.2 if r < 4 else 4.0, (2.4, 4.0), (2.4, 4.0)),
        # Unlucky verdicts, two standard errors off, do not end a search.
        (_unlucky, _unlucky, (5.9, 10.0), (5.9, 10.0)),
    ],
)
def test_few_images_are_searched_by_cross_validation(
    fitted: Loss, crossed: Loss, many: tuple[float, float], few: tuple[float, float]
) -> None:
    for is_few, (least, most) in ((False, many), (True, few)):
        workshop = _Workshop(fitted, crossed, few=is_few)
        told: list[int] = []
        search = Explorer(workshop, Budget(1.0), lambda done, of: told.append(done))  # type: ignore[arg-type] # noqa: B023
        chosen = search.choose([_SIZE])
        assert chosen is not None
        assert least <= _WORK / search.done[chosen].work <= most
        assert told == sorted(told), "progress never goes back"


@pytest.mark.parametrize(
    ("few", "least", "most"),
    [
        # A point is lost at 10x by images that were fitted, at 2.5x by others, at 4x by both.
        (True, 2.8, 4.0),
        (False, 7.0, 10.0),
    ],
)
def test_of_known_images_fitted_ones_count_more(few: bool, least: float, most: float) -> None:
    workshop = _Workshop(lambda r: r / 10, lambda r: 2 * r / 5, few=few)
    workshop.seen = True
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.choose([_SIZE])
    assert chosen is not None
    assert least <= _WORK / search.done[chosen].work <= most


@pytest.mark.parametrize("few", [True, False])
def test_images_that_fit_nothing_flatter_nobody(few: bool) -> None:
    """Where other images judge than those that are fitted on, what they say is what is expected."""

    class ByOthers(_Workshop):
        def cross_validate(self, candidate: Candidate) -> None:
            return None

    workshop = ByOthers(lambda r: r / 10, lambda r: math.nan, few=few)
    workshop.flattering = False
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.choose([_SIZE])
    assert chosen is not None
    assert 7.0 <= _WORK / search.done[chosen].work <= 10.0


def test_another_budget_goes_on_from_what_was_made() -> None:
    """A point is lost at 5x, two at 10x; nothing is made twice, also on the way back."""
    made: list[float] = []

    class Counting(_Workshop):
        def make(self, enough: Callable[[float], bool]) -> Candidate:
            candidate = super().make(enough)
            made.append(candidate.work)
            return candidate

    search = Explorer(
        Counting(lambda r: r / 5, lambda r: r / 5), Budget(1.0), lambda done, of: None
    )  # type: ignore[arg-type]
    found = []
    for budget in (1.0, 2.0, 1.0):
        search.spend(Budget(budget))
        chosen = search.choose([_SIZE])
        assert chosen in search.validated
        found.append(_WORK / search.done[chosen].work)
    assert 3.5 <= found[0] <= found[2] <= 5.0
    assert 7.0 <= found[1] <= 10.0
    assert len(set(made)) == len(made) <= 15


def test_what_was_within_the_budget_may_be_so_no_more() -> None:
    """The first candidate is lucky: all that come after tell that it is not within the budget."""

    class Lucky(_Workshop):
        def cross_validate(self, candidate: Candidate) -> Verdict:
            asked.append(candidate.work)
            return _verdict(0.89 if len(asked) == 1 else 3.0)

    asked: list[float] = []
    workshop = Lucky(lambda r: 0.3, lambda r: 0.0, few=True)
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.choose([_SIZE])
    assert chosen is None or search._allows(chosen)
    assert len(asked) > 1


@pytest.mark.parametrize(
    "seeds", exhaustive((range(20), range(20, 100)), lambda seeds: seeds.start == 0)
)
@pytest.mark.parametrize("is_few", [False, True])
def test_whatever_verdicts_say_what_is_chosen_is_validated_and_within_the_budget(
    is_few: bool, seeds: range
) -> None:
    class Noisy(_Workshop):
        """Verdicts that err by as much as the budget, at five sizes of an image."""

        def go_to(self, size: tuple[int, int]) -> None:
            self.size = size

        def make(self, enough: Callable[[float], bool]) -> Candidate:
            return replace(super().make(enough), size=self.size)

    for seed in seeds:
        rng = np.random.default_rng(seed)
        slope, level = rng.uniform(0, 1), rng.uniform(-2, 2)

        def lost(ratio: float) -> float:
            return level + slope * ratio + rng.normal()  # noqa: B023

        workshop = Noisy(lost, lost, few=is_few)
        search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
        chosen = search.choose([_SIZE, (7, 7), (6, 6), (5, 5), (4, 4)])
        if chosen is not None:
            assert chosen in search.validated
            assert search._allows(chosen)
        assert len(search.done) < 80


def test_an_input_size_at_which_nothing_holds_is_left_for_the_networks_own() -> None:
    class ByPixels(_Workshop):
        """A smaller image seems to cost nothing, and costs eight points."""

        def go_to(self, size: tuple[int, int]) -> None:
            self.size = size

        def cross_validate(self, candidate: Candidate) -> Verdict:
            return _verdict(0.5 if candidate.size == _SIZE and candidate.work > 40 else 8.0)

        def make(self, enough: Callable[[float], bool]) -> Candidate:
            return replace(super().make(enough), size=self.size)

    search = Explorer(
        ByPixels(lambda r: 0.1 if r < 8 else 9.0, lambda r: 0.0), Budget(1.0), lambda done, of: None
    )  # type: ignore[arg-type]
    chosen = search.choose([_SIZE, (7, 7), (6, 6)])
    assert chosen is not None
    assert chosen[0] == _SIZE
    assert 1.5 < _WORK / search.done[chosen].work < 2.5


def test_a_size_that_is_refused_uncut_is_left_at_once() -> None:
    class OneSize(_Workshop):
        """The smaller image saves half by itself, and seems to be all that holds."""

        def go_to(self, size: tuple[int, int]) -> None:
            self.size = size

        def work_left(self, cut: float | Cut) -> float:
            return cut if isinstance(cut, float) else _WORK if self.size == _SIZE else 50.0

        def make(self, enough: Callable[[float], bool]) -> Candidate:
            made = replace(super().make(enough), size=self.size)
            if self.size == _SIZE:
                return replace(made, verdict=_verdict(1.5))
            return replace(made, work=min(50.0, made.work))

        def cross_validate(self, candidate: Candidate) -> Verdict:
            asked.append(candidate.size)
            return _verdict(-0.5 if candidate.size == _SIZE and candidate.work > 60 else 8.0)

    asked: list[tuple[int, int]] = []
    workshop = OneSize(lambda r: 0.1 if r < 2.1 else 9.0, lambda r: 0.0)
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.choose([_SIZE, (7, 7), (6, 6)])
    assert chosen is not None
    assert chosen[0] == _SIZE
    assert 1.15 < _WORK / search.done[chosen].work < 1.67
    assert asked.count((6, 6)) <= 1, "as it is, and no more often"


def test_where_nothing_will_do_nothing_is_chosen() -> None:
    workshop = _Workshop(lambda r: 0.0 if r < 6 else 8.0, lambda r: 50.0)
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    assert search.choose([_SIZE]) is None
    assert len(search.done) < 40, "and it takes an end"
    assert math.isinf(search.told) or search.told < _WORK


_INF = math.inf


@pytest.mark.parametrize(
    ("divergences", "best", "tries"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0], 4, 3),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 0, 6),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 7, 5),
        ([_INF, _INF, _INF, _INF, _INF, _INF, 2.0, 3.0], 6, 4),  # only small images get there
        ([_INF, _INF, _INF, 1.0, 2.0, 3.0, 4.0, 5.0], 3, 4),
        ([1.0], 0, 1),
    ],
)
def test_a_ratio_is_reached_at_the_size_of_least_divergence_without_trying_all(
    divergences: list[float], best: int, tries: int
) -> None:
    search = _reaching(divergences)
    assert search.choose([(224 - 16 * i,) * 2 for i in range(len(divergences))]) == (
        (224 - 16 * best,) * 2,
        0,
    )
    assert len(search.done) == tries
    assert not search.missed


def test_a_ratio_that_no_size_reaches_is_said_to_be_missed() -> None:
    search = _reaching([_INF] * 5)
    chosen = search.choose([(224 - 16 * i,) * 2 for i in range(5)])
    assert search.missed
    assert chosen == ((160, 160), 0), "the smallest there is"


def _reaching(divergences: list[float]) -> Reach:
    """A search whose candidate at the n-th of falling sizes diverges by so much."""
    workshop, budget = _Workshop(lambda r: 0.0, lambda r: 0.0), Budget(1.0, target_macs=4.0)
    search = Reach(workshop, budget, lambda done, of: None)  # type: ignore[arg-type]

    def reach_at(size: tuple[int, int]) -> float:
        verdict = _verdict(0.0)
        search.done[size, 0] = Candidate(size, Plan(), None, size[0], torch.zeros(1), verdict)
        return divergences[(224 - size[0]) // 16]

    search._reach_at = reach_at  # type: ignore[method-assign]
    return search


def test_a_network_of_which_nothing_can_be_cut_ends_a_search() -> None:
    class Stubborn(_Workshop):
        def make(self, enough: Callable[[float], bool]) -> Candidate | None:  # type: ignore[override]
            asked.append(1)
            return None

    asked: list[int] = []
    workshop = Stubborn(lambda r: 0.0, lambda r: 0.0)
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    assert search.choose([_SIZE, (7, 7)]) is None
    assert search.best_so_far() is None
    assert len(asked) < 60


def test_sizes_that_nobody_has_tried_are_tried() -> None:
    """A valley that is steep on one side: half the size loses next to nothing."""

    class BySize(_Workshop):
        def go_to(self, size: tuple[int, int]) -> None:
            self.size = size

        def make(self, enough: Callable[[float], bool]) -> Candidate:
            made = replace(super().make(enough), size=self.size)
            return replace(made, verdict=_verdict(self.loss(made)))

        def cross_validate(self, candidate: Candidate) -> Verdict:
            return _verdict(self.loss(candidate))

        def loss(self, candidate: Candidate) -> float:
            return _WORK / candidate.work * (candidate.size[0] / 224) ** 1.5 / 8

    search = Explorer(BySize(lambda r: 0.0, lambda r: 0.0), Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.choose([(side, side) for side in range(224, 79, -16)])
    assert chosen is not None
    assert chosen[0][0] <= 112
    assert _WORK / search.done[chosen].work > 15, "a point is lost at 8x at 224, at 37x at 80"
    assert len(search.done) <= 25
    assert len(search.validated) <= 5
