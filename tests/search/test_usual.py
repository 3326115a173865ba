"""What networks usually lose, beside what images say."""

from statistics import NormalDist

import numpy as np
import pytest

from distillnet.search.budget import Budget
from distillnet.search.decision import limits
from distillnet.search.usual import usual


@pytest.mark.parametrize(("ratio", "wrong"), [(1.2, 0.0), (4.0, 5.0), (20.0, 2.0)])
def test_what_is_expected_is_the_mean_of_both_densities_multiplied(
    ratio: float, wrong: float
) -> None:
    known = usual(np.log([ratio]), wrong)
    prior = NormalDist(float(known.loss_pp[0]), float(known.uncertain_pp[0]))
    said, error = prior.mean + 0.4, 0.8  # half an error off: no more than chance
    images = NormalDist(said, error)
    grid = np.linspace(-20, 20, 40001)
    density = np.array([prior.pdf(x) * images.pdf(x) for x in grid])
    mean = (grid * density).sum() / density.sum()
    expected, uncertain = known.drawn(np.array([said]), np.array([error]))
    assert expected[0] == pytest.approx(mean, abs=1e-6)
    variance = ((grid - mean) ** 2 * density).sum() / density.sum()
    assert uncertain[0] == pytest.approx(variance**0.5, abs=1e-5)


def test_a_network_that_is_not_cut_loses_nothing() -> None:
    """Where nothing is learnt from labels, all that images say of it is chance."""
    loss, uncertain = usual(np.zeros(1), 0.0).drawn(np.array([0.6]), np.array([0.7]))
    assert loss[0] == pytest.approx(0.0, abs=1e-6)
    assert uncertain[0] == pytest.approx(0.0, abs=1e-6)


def test_images_are_not_argued_away() -> None:
    """The more they say, the more is expected; far beyond chance nearly all of it."""
    said = np.linspace(-10, 10, 401)
    known = usual(np.log(np.full_like(said, 1.5)), 3.0)
    error = np.full_like(said, 0.7)
    expected, uncertain = known.drawn(said, error)
    assert (np.diff(expected) > 0).all()
    assert expected[-1] > 0.98 * said[-1]
    assert uncertain[-1] == pytest.approx(0.7, rel=0.01)
    assert (uncertain < 0.7).all()
    assert known.undrawn(expected, said, error) == pytest.approx(said)


def test_limits_are_where_the_confidence_ends() -> None:
    budget, wrong = Budget(1.0, confidence=0.7), 4.0
    error = np.array([0.05, 0.3, 0.8])
    for most, sigma in zip(limits(budget, error, wrong), error, strict=True):
        expected = NormalDist(most, sigma)
        below = expected.cdf(-wrong / 2)
        assert (expected.cdf(1.0) - below) / (1 - below) == pytest.approx(0.7, abs=1e-5)
