"""What all candidates together tell of each."""

import numpy as np
import pytest

from distillnet.search import Verdict
from distillnet.search import smoothing as s


def _verdict(loss: float, error: float) -> Verdict:
    return Verdict(
        loss, loss, (loss,), 0.0, estimate_pp=loss, estimate_uncertain_pp=error,
        class_estimates_pp=(loss, loss + 2),
    )  # fmt: skip


def test_it_is_the_posterior_in_its_other_form() -> None:
    """The precisions of prior and measurement add up; their means are weighted by them."""
    rng = np.random.default_rng(0)
    work, side = rng.uniform(4, 40, 6), rng.choice([128, 160, 224], 6)
    told, error = rng.normal(1, 1, 6), np.array([0.4, 0.5, 0.8, 0.8, 1.1, 1.5])
    found = s.smoothed([_verdict(*pair) for pair in zip(told, error, strict=True)], work, side)
    less = -np.log(work) + np.log(work).mean()
    prior, noise = np.empty((6, 6)), np.empty((6, 6))
    for i in range(6):
        for j in range(6):
            near = (less[i] - less[j]) ** 2 / 0.72 + np.log(side[i] / side[j]) ** 2 / 0.045
            prior[i, j] = 100 + 9 * less[i] * less[j] + 4 * np.exp(-near) + 0.09 * (i == j)
            noise[i, j] = 0.64 * (1 if i == j else 0.65)
    both = np.linalg.inv(prior), np.linalg.inv(noise)
    covariance = np.linalg.inv(both[0] + both[1])
    mean = covariance @ both[1] @ told
    assert [verdict.estimate_pp for verdict in found] == pytest.approx(mean, abs=1e-6)
    assert [verdict.estimate_uncertain_pp for verdict in found] == error.tolist()
    for verdict in found:
        moved = [loss - verdict.estimate_pp for loss in verdict.class_estimates_pp]
        assert moved == pytest.approx([0, 2])


def test_nothing_is_expected_that_no_verdict_says() -> None:
    """Verdicts that find little lost are the surest, but no curve lies below all of them."""
    told = np.array([0.0, 0.0, 0.1, 0.9, 1.2, 2.2])
    verdicts = [_verdict(loss, 0.3 + 0.7 * loss) for loss in told]
    for ratios in (np.linspace(3, 30, 6), np.linspace(9, 11, 6)):
        found = s.smoothed(verdicts, 1 / ratios, [160] * 6)
        losses = np.array([verdict.estimate_pp for verdict in found])
        assert losses.mean() == pytest.approx(told.mean(), abs=0.02)
        assert losses.min() > -0.15


def test_the_smallest_that_seems_good_is_less_often_a_lucky_one() -> None:
    """Of 300 missions whose losses are known: how much more is lost than was expected."""
    rng = np.random.default_rng(1)
    off: dict[str, list[float]] = {"alone": [], "together": []}
    ratios = np.linspace(4, 16, 9)
    for _ in range(300):
        true = rng.normal(-1.5, 1) + 3 * np.log(ratios / 4) + rng.normal(0, 0.3, 9)
        error = 0.8 * (0.65**0.5 * rng.normal() + 0.35**0.5 * rng.normal(size=9))
        alone = [_verdict(loss, 0.8) for loss in true + error]
        together = s.smoothed(alone, 1 / ratios, [160] * 9)
        for name, verdicts in (("alone", alone), ("together", together)):
            within = [i for i, verdict in enumerate(verdicts) if verdict.estimate_pp < 0.5]
            if within:
                off[name].append(true[within[-1]] - verdicts[within[-1]].estimate_pp)
    assert np.mean(off["together"]) < 0.6 * np.mean(off["alone"])
    assert np.mean(off["alone"]) > 0.2
