"""Which candidates a search makes, where what they lose is known by a formula."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from distillnet.cut.plan import Plan
from distillnet.search.allocation import Cut
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate
from distillnet.search.explorer import Explorer
from distillnet.search.judge import Verdict
from distillnet.search.store import NOWHERE

_SIZE, _WORK = (8, 8), 100.0
Loss = Callable[[float], float]  # points, by how many times less there is to do


class _Workshop:
    """Makes any candidate that is asked for, to a tenth of a percent of the work."""

    def __init__(self, fitted: Loss, crossed: Loss) -> None:
        self.fitted, self.crossed = fitted, crossed
        self.work, self.original_size, self.store = _WORK, _SIZE, NOWHERE
        self.judge = SimpleNamespace(seen=False)
        self.roles = SimpleNamespace(fit=range(200))
        self.here = SimpleNamespace(channels=SimpleNamespace(count=1))

    def go_to(self, size: object) -> None:
        pass

    def choose_teacher(self) -> None:
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
        (lambda r: 0.0 if r < 6 else 8.0, lambda r: 0.0 if r < 2 else 8.0, 1.5, 2.0),
        (lambda r: -1.0 if r < 6 else 8.0, lambda r: -1.0 if r < 1.4 else 8.0, 1.12, 1.4),
    ],
)
def test_the_smallest_is_found_that_cross_validation_is_for(
    fitted: Loss, crossed: Loss, least: float, most: float
) -> None:
    search = Explorer(_Workshop(fitted, crossed), Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    chosen = search.smallest([_SIZE])
    assert chosen is not None
    assert least <= _WORK / search.done[chosen].work <= most


def test_where_nothing_will_do_nothing_is_chosen() -> None:
    workshop = _Workshop(lambda r: 0.0 if r < 6 else 8.0, lambda r: 50.0)
    search = Explorer(workshop, Budget(1.0), lambda done, of: None)  # type: ignore[arg-type]
    assert search.smallest([_SIZE]) is None
    assert len(search.done) < 40, "and it takes an end"
    assert math.isinf(search.told) or search.told < _WORK
