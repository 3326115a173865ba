"""Who judges what, what is counted, and when a loss is within a budget."""

from dataclasses import replace

import pytest
import torch

from distillnet.search import Budget, Judge, Verdict, beyond_memory, is_within
from distillnet.search.candidates import make_folds
from distillnet.search.judge import is_sure
from small_network import MISSION


@pytest.mark.parametrize(("n", "n_statistics"), [(1000, 500), (230, 80), (90, 80), (4, 2), (3, 1)])
def test_each_image_judges_once_and_nothing_that_it_fitted(n: int, n_statistics: int) -> None:
    folds = make_folds(n, n_statistics, alike=True)
    assert torch.cat([fold.judge for fold in folds]).sort().values.tolist() == list(range(n))
    for fold in folds:
        assert not set(fold.fit.tolist()) & set(fold.judge.tolist())
        assert 1 <= len(fold.fit) <= max(1, n_statistics)
        assert len(fold.fit) == len(fold.fit.unique())


def test_the_judge_counts_by_hand() -> None:
    before = torch.tensor([[3.0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3], [3, 0, 0, 0]])
    after = torch.tensor([[0.0, 0, 3, 0], [0, 0, 3, 0], [0, 9, 0, 3], [3, 0, 0, 0]])
    judge = Judge(before, torch.tensor([0, 1, 2, 0]), MISSION)
    verdict = judge.verdict(after)
    assert verdict.loss_pp == 25.0  # one of four; class 1, outside the mission, does not count
    assert verdict.worst_class_loss_pp == 50.0  # one of two of the first class
    assert judge.verdict(before) == Verdict(0.0, 0.0, (0.0, 0.0, 0.0), 0.0, 25.0, 0.0, 4, 1)
    assert judge.allows(Budget(30.0), verdict)
    # A class of one image cannot tell less than that one.
    assert judge.allows(Budget(30.0, max_class_loss_pp=40.0), verdict)
    more = Judge(before.repeat(4, 1), torch.tensor([0, 1, 2, 0] * 4), MISSION)
    many = more.verdict(after.repeat(4, 1))
    assert not more.allows(Budget(30.0, max_class_loss_pp=40.0), many)
    assert not judge.allows(Budget(20.0), verdict)


def test_what_a_light_cut_forgets_is_not_counted_up_to_the_budget() -> None:
    budget = Budget(1.0)
    verdict = Verdict(2.5, 3.0, (4.0, 1.0), 0.0)

    def beyond(light: Verdict | None) -> tuple[float, float, float]:
        loss = beyond_memory(budget, verdict, light)
        return loss.expected_pp, loss.counted_pp, loss.worst_class_pp

    assert beyond(None) == (3.0, 2.5, 4.0)
    assert beyond(Verdict(0.5, 0.25, (2.0, -1.0), 0.0)) == (2.75, 2.0, 3.5)
    assert beyond(Verdict(9.0, 9.0, (9.0, 9.0), 0.0)) == (2.0, 1.5, 3.0)
    assert beyond(Verdict(-3.0, -3.0, (-3.0, -3.0), 0.0)) == (3.0, 2.5, 4.0)


@pytest.mark.parametrize(
    ("expected", "counted", "worst", "within"),
    [
        (0.9, 0.9, 2.0, True),
        (1.1, 0.5, 2.0, False),  # the expected loss decides
        (0.9, 1.4, 2.0, True),  # counted errors are uncertain
        (0.9, 1.6, 2.0, False),  # but not so much
        (0.9, 0.9, 3.5, False),  # the worst class
    ],
)
def test_the_expected_loss_decides_and_counted_errors_object(
    expected: float, counted: float, worst: float, within: bool
) -> None:
    verdict = Verdict(counted, expected, (worst, 0.0), 0.0, 0.5, 0.3, 1000, 500)
    assert is_within(Budget(1.0), verdict) is within
    assert is_sure(Budget(1.0), verdict) is False  # all are within a standard error
    assert is_sure(Budget(1.0), replace(verdict, expected_loss_pp=3.0)) is True


@pytest.mark.parametrize(
    ("expected", "uncertain", "within", "sure"),
    [
        (0.9, 0.1, True, True),  # two standard errors more are 1.1, of 1.5 allowed
        (0.9, 0.25, True, False),
        (0.9, 0.35, False, False),  # 1.6
        (0.7, 0.35, True, False),
        (0.1, 0.35, True, True),
        (1.3, 0.35, False, True),
    ],
)
def test_few_images_allow_little(
    expected: float, uncertain: float, within: bool, sure: bool
) -> None:
    """More images may turn what is not sure; two standard errors stay within 1.5 budgets."""
    verdict = Verdict(0.0, expected, (0.0, 0.0), 0.0, 0.5, uncertain, 1000, 500)
    assert is_within(Budget(1.0), verdict) is within
    assert is_sure(Budget(1.0), verdict) is sure
