"""What candidates together tell of each other, and of those that were not made."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from distillnet.search import Budget, Verdict
from distillnet.search import beliefs as b
from distillnet.search.curve import Curve, Prior

_SIZE = (160, 160)


def _verdict(loss: float, error: float = 0.8, worst: float | None = None) -> Verdict:
    return Verdict(
        loss, loss, (loss,), 0.0, estimate_pp=loss, estimate_uncertain_pp=error,
        class_estimates_pp=(loss, loss + 0.5 if worst is None else worst), original_wrong_pp=4.0,
    )  # fmt: skip


def _beliefs(**options: object) -> b.Beliefs:
    known = {
        "part": 1.0,
        "seen": False,
        "flattering": True,
        "n_fitted": 200,
        "own_size": (224, 224),
        "labels": True,
        **options,
    }
    return b.Beliefs(Budget(1.0), **known)  # type: ignore[arg-type]


def test_a_curve_is_the_posterior_in_its_other_form() -> None:
    """The precisions of prior and measurement add up; their means are weighted by them."""
    rng = np.random.default_rng(0)
    at = np.log(np.stack([rng.uniform(2, 30, 6), rng.choice([128, 160, 224], 6)], 1))
    told, error = rng.normal(1, 1, 6), rng.uniform(0.3, 1.0, 6)
    prior = Prior((0.5, 3.0), (1.0, 1.5), bend=2.0, side=1.5, each=0.3)
    curve = Curve(prior, at, told, error)
    covariance, line = np.empty((6, 6)), np.empty(6)
    for i in range(6):
        line[i] = 0.5 + at[i, 0] - math.log(5)
        for j in range(6):
            (u, v), (other_u, other_v) = at[i], at[j]
            near = math.exp(-((u - other_u) ** 2) / 2 / 1.0**2)
            beside = math.exp(-((v - other_v) ** 2) / 2 / 0.25**2)
            covariance[i, j] = 9 + 2.25 * (u - math.log(5)) * (other_u - math.log(5))
            covariance[i, j] += near * (4 + 2.25 * beside) + 0.09 * (i == j)
    precision = np.linalg.inv(covariance) + np.diag(error**-2)
    mean = np.linalg.solve(precision, np.linalg.solve(covariance, line) + told / error**2)
    assert curve.measured() == pytest.approx(mean, abs=1e-6)
    smooth, uncertain = curve.of(at)
    assert np.abs(smooth - told).max() < 2
    off, whole = told - line, covariance + np.diag(error**2)
    density = -0.5 * np.linalg.slogdet(whole)[1] - 0.5 * off @ np.linalg.solve(whole, off)
    assert curve.likelihood() == pytest.approx(density)
    nothing = Curve(prior, at[:0], told[:0], error[:0]).of(at)
    assert nothing[0] == pytest.approx(line)
    assert (nothing[1] > uncertain).all()


def test_a_cross_validation_tells_of_those_that_were_not_validated() -> None:
    """The nearer, the more; and what they are believed to lose is less certain before it."""
    beliefs = _beliefs()
    keys = [(_SIZE, level) for level in range(3)]
    for key, ratio in zip(keys, (4.0, 6.0, 20.0), strict=True):
        beliefs.add(key, _verdict(0.0), ratio)
    before = [beliefs.of(key).estimate_pp for key in keys]
    vague = [beliefs.vague_pp(key) for key in keys]
    beliefs.validate(keys[0], _verdict(1.5))
    raised = [beliefs.of(key).estimate_pp - old for key, old in zip(keys, before, strict=True)]
    assert raised[0] > raised[1] > raised[2] > 0.1
    assert beliefs.vague_pp(keys[0]) == 0
    assert beliefs.vague_pp(keys[1]) < 0.9 * vague[1]
    assert beliefs.vague_pp(keys[1]) < beliefs.vague_pp(keys[2])


@pytest.mark.parametrize(("n_images", "flattered"), [(100, 0.5), (180, 0.5), (900, 0.1)])
def test_fitted_images_flatter_the_less_the_more_they_are(n_images: int, flattered: float) -> None:
    beliefs = _beliefs(n_fitted=n_images)
    for level in range(30):  # many alike, so that none is drawn to the prior
        beliefs.add((_SIZE, level), _verdict(1.0, 0.1), 6.0)
    assert beliefs.of((_SIZE, 0)).estimate_pp == pytest.approx(1 + flattered, abs=0.1)


@pytest.mark.parametrize(("side", "more"), [(224, 0.0), (160, -0.3), (112, 1.0)])
@pytest.mark.parametrize("flattering", [True, False])
def test_fitted_images_of_the_training_hide_what_small_inputs_lose(
    side: int, more: float, flattering: bool
) -> None:
    size, believed = (side, side), {}
    for seen in (False, True):
        beliefs = _beliefs(part=0.0, seen=seen, flattering=flattering)
        for level in range(30):  # many alike, so that none is drawn to the prior
            beliefs.add((size, level), _verdict(1.0, 0.1), 6.0)
        believed[seen] = beliefs.of((size, 0))
    new, known = believed[False], believed[True]
    hidden = more if flattering else 0.0
    assert known.estimate_pp - new.estimate_pp == pytest.approx(hidden, abs=0.2)
    less_certain = known.estimate_uncertain_pp - new.estimate_uncertain_pp
    assert less_certain == 0 if side == 224 else less_certain > (0.1 if flattering else 0.2)


def test_what_is_hidden_is_not_added_to_what_other_images_say() -> None:
    """Fitted images say 0 and hide 1, others say 1.5: the middle of both is believed."""
    beliefs = _beliefs(part=1.0, seen=True)
    for level in range(30):
        key = (112, 112), level
        beliefs.add(key, _verdict(0.0, 0.1), 6.0)
        beliefs.validate(key, _verdict(1.5, 0.1))
    assert 1.0 < beliefs.of(((112, 112), 0)).estimate_pp < 1.5


def test_chances_fall_with_what_is_cut_and_with_the_worst_class() -> None:
    ratios, chances = [4.0, 6.0, 9.0, 14.0], {}
    for worst in (1.0, 8.0):
        beliefs = _beliefs()
        for level, loss in enumerate([0.0, 0.3, 0.6, 1.5]):
            key = _SIZE, level
            beliefs.add(key, _verdict(loss, 0.5, worst=worst + loss), ratios[level])
            beliefs.validate(key, None)
        chances[worst] = beliefs.chances(_SIZE, ratios)
        assert (np.diff(chances[worst]) < 0.05).all()
    assert chances[1.0][0] > 0.9 > 0.1 > chances[1.0][-1]
    assert (chances[8.0] < 0.05).all(), "three points are what a class may lose"


def test_candidates_tell_of_a_size_that_nobody_has_tried() -> None:
    """Each loses by how far it is cut at its size, and a little for the size itself."""

    def loss(side: int, ratio: float) -> float:
        pixels = (side / 224) ** 2
        return -0.5 + 1.5 * math.log(ratio * pixels) - math.log(pixels) / 2

    beliefs = _beliefs(part=0.0)
    for level, ratio in enumerate([3.4, 5.0, 7.0, 9.0]):
        beliefs.add((_SIZE, level), _verdict(loss(160, ratio), 0.3), ratio)
    for side in (224, 192, 128):
        low, high = beliefs.chances((side, side), [ratio_of(loss, side, pp) for pp in (0.3, 2.0)])
        assert low > 0.6 > 0.15 > high, side


def ratio_of(loss: Callable[[int, float], float], side: int, pp: float) -> float:
    """How many times less work costs so many points at a size."""
    low, high = 1.0, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if loss(side, middle) < pp else (low, middle)
    return low


@pytest.mark.parametrize("side", [112, 128, 144, 192, 224])
def test_what_images_hide_at_a_size_is_known_before_it_was_tried(side: int) -> None:
    chances = {}
    for seen in (False, True):
        beliefs = _beliefs(part=0.0, seen=seen)
        for level, ratio in enumerate([3.0, 5.0, 8.0]):
            beliefs.add((_SIZE, level), _verdict(0.2 * ratio, 0.3), ratio)
        chances[seen] = beliefs.chances((side, side), [4.0, 7.0])
    if side < 140:
        assert (chances[True] < chances[False] - 0.1).any()
    if side > 180:  # where they overstate, but are less certain
        assert (chances[True] > chances[False] - 0.1).all()


def test_before_anything_was_made_little_is_known() -> None:
    beliefs = _beliefs()
    near, far = beliefs.chances((224, 224), [1.05, 30.0])
    assert near > 0.6
    assert 0 < far < 0.6


def test_losses_far_beyond_the_budget_tell_nothing_of_where_it_ends() -> None:
    chances = []
    for far in (20.0, 60.0):
        beliefs = _beliefs()
        for level, (ratio, loss) in enumerate([(4.0, 0.0), (6.0, 0.4), (20.0, far)]):
            beliefs.add((_SIZE, level), _verdict(loss), ratio)
        assert beliefs.of((_SIZE, 2)).estimate_pp > far - 3
        chances.append(beliefs.chances(_SIZE, [5.0, 8.0, 12.0]))
    assert chances[0] == pytest.approx(chances[1])


def test_nothing_is_expected_that_no_verdict_says() -> None:
    """Verdicts that find little lost are the surest, but no curve lies below all of them."""
    told = np.array([0.0, 0.0, 0.1, 0.9, 1.2, 2.2])
    for ratios in (np.linspace(3, 30, 6), np.linspace(9, 11, 6)):
        beliefs = _beliefs()
        for level, (loss, ratio) in enumerate(zip(told, ratios, strict=True)):
            beliefs.add((_SIZE, level), _verdict(loss, 0.1 + 0.25 * loss), ratio)
            beliefs.validate((_SIZE, level), None)
        losses = np.array([beliefs.of((_SIZE, level)).estimate_pp for level in range(6)])
        assert losses.mean() == pytest.approx(told.mean(), abs=0.05)
        assert losses.min() > -0.15


def test_the_smallest_that_seems_good_is_less_often_a_lucky_one() -> None:
    """Of 300 missions whose losses are known: how much more is lost than was expected."""
    rng = np.random.default_rng(1)
    off: dict[str, list[float]] = {"alone": [], "together": []}
    ratios = np.linspace(4, 16, 9)
    for _ in range(300):
        true = rng.normal(-1.5, 1) + 3 * np.log(ratios / 4) + rng.normal(0, 0.3, 9)
        error = 0.8 * (0.65**0.5 * rng.normal() + 0.35**0.5 * rng.normal(size=9))
        alone, beliefs = true + error, _beliefs()
        for level, (loss, ratio) in enumerate(zip(alone, ratios, strict=True)):
            beliefs.add((_SIZE, level), _verdict(loss), ratio)
            beliefs.validate((_SIZE, level), None)
        together = [beliefs.of((_SIZE, level)).estimate_pp for level in range(9)]
        for name, losses in (("alone", alone), ("together", together)):
            within = [i for i, loss in enumerate(losses) if loss < 0.5]
            if within:
                off[name].append(true[within[-1]] - losses[within[-1]])
    assert np.mean(off["together"]) < 0.75 * np.mean(off["alone"])
    assert np.mean(off["alone"]) > 0.2
