"""Accuracies, losses and the interval, against hand counts, a published example and simulation."""

import numpy as np
import pytest
import torch
from torch import nn

from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    graph_scores,
    loss_interval_pp,
    loss_pp,
    worst_class_loss_pp,
)
from distillnet.graph.capture import capture
from distillnet.images import Batch

MISSION = Mission((4, 1), ("cat", "dog"))
# Four images of classes 4, 4, 1, 1 and scores of classes 0 to 4.
OPEN = Scores(
    torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0, 9.0],  # right in both
            [8.0, 1.0, 0.0, 0.0, 2.0],  # class 0 wins, but that is none of the mission's
            [0.0, 3.0, 0.0, 0.0, 4.0],  # a dog taken for a cat
            [0.0, 5.0, 0.0, 6.0, 4.0],  # class 3 wins
        ]
    ),
    torch.tensor([4, 4, 1, 1]),
)


def test_closed_and_open_set() -> None:
    closed = closed_set(OPEN, MISSION)
    assert closed.scores_nk.tolist() == [[9, 0], [2, 1], [4, 3], [4, 5]]
    assert closed.labels_n.tolist() == [0, 0, 1, 1]
    result = evaluation(closed, MISSION, OPEN)
    assert (result.accuracy, result.accuracy_open) == (0.75, 0.25)
    assert result.per_class == {"cat": 1.0, "dog": 0.5}
    assert (result.correct, result.n) == ((True, True, False, True), 4)
    assert evaluation(closed, MISSION).accuracy_open is None


def test_losses_are_percentage_points_and_gains_are_negative() -> None:
    before = Evaluation(0.75, None, {"cat": 1.0, "dog": 0.5}, ())
    after = Evaluation(0.5, None, {"cat": 0.25, "dog": 0.75}, ())
    assert loss_pp(before, after) == 25
    assert loss_pp(after, before) == -25
    assert worst_class_loss_pp(before, after) == 75
    assert worst_class_loss_pp(after, before) == 25


def _pairs(both: int, lost: int, won: int, neither: int) -> tuple[Evaluation, Evaluation]:
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return (Evaluation(0, None, {}, tuple(before)), Evaluation(0, None, {}, tuple(after)))


def test_interval_of_a_published_table() -> None:
    # Agresti, Categorical Data Analysis, approval of the prime minister: 944 of 1,600 before and
    # 880 after, 150 and 86 changed sides; difference 0.04, standard error 0.0095.
    low, high = loss_interval_pp(*_pairs(794, 150, 86, 570))
    assert low == pytest.approx(100 * (0.04 - 1.96 * 0.0095), abs=0.02)
    assert high == pytest.approx(100 * (0.04 + 1.96 * 0.0095), abs=0.02)


def test_interval_is_symmetric_in_the_two_networks() -> None:
    before, after = _pairs(40, 7, 2, 5)
    low, high = loss_interval_pp(before, after)
    assert loss_interval_pp(after, before) == pytest.approx((-high, -low))
    assert low < 100 * 5 / 54 < high


@pytest.mark.parametrize(("lost", "won"), [(0.03, 0.01), (0.05, 0.05), (0.02, 0.0)])
def test_interval_covers_the_truth_as_often_as_it_says(lost: float, won: float) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(300, [0.9 - lost, lost, won, 0.1 - won], size=800)
    covered = 0
    for both, n_lost, n_won, neither in counts.tolist():
        low, high = loss_interval_pp(*_pairs(both, n_lost, n_won, neither))
        covered += low <= 100 * (lost - won) <= high
    assert 0.93 < covered / 800 < 0.99


def test_scores_that_are_not_finite_are_refused_by_image() -> None:
    graph = capture(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (2, 2))
    x = torch.ones(3, 3, 2, 2)
    labels = torch.tensor([0, 1, 2])
    found = graph_scores(graph, [Batch(x, labels, ()), Batch(x[:1], labels[:1], ())])
    assert found.scores_nk.shape == (4, 3)
    assert found.labels_n.tolist() == [0, 1, 2, 0]
    x[1] = torch.inf
    refs = ("first.jpg", "second.jpg", "third.jpg")
    with pytest.raises(InputError, match=r"second\.jpg"):
        graph_scores(graph, [Batch(x, labels, refs)])  # type: ignore[arg-type]
