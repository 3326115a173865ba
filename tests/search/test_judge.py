"""Who judges what, what is counted, and when a loss is within a budget."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distillnet.search import Budget, Judge, Verdict, estimate, is_within
from distillnet.search.decision import objection
from distillnet.search.known import knows
from distillnet.search.pooling import pooled
from distillnet.search.roles import assign_roles
from small_network import MISSION


@pytest.mark.parametrize(
    ("n", "n_statistics"), [(1000, 500), (2000, 700), (3000, 80), (230, 80), (4, 2), (3, 1)]
)
def test_all_images_judge_and_no_more_fit_than_twice_the_statistics(
    n: int, n_statistics: int
) -> None:
    roles = assign_roles(n, n_statistics, alike=True)
    assert roles.judge.tolist() == list(range(n))
    assert len(roles.fit) == len(roles.fit.unique()) == min(n, max(1000, 2 * n_statistics))
    roles = assign_roles(n, n_statistics, alike=False)
    assert roles.fit.sort().values.tolist() == list(range(n_statistics))
    assert roles.judge.tolist() == list(range(n_statistics, n))


def test_whatever_part_of_the_images_fits_is_of_all_classes() -> None:
    """Layers whose values take much memory are fitted on the first images alone."""
    classes = torch.arange(1000) // 100
    roles = assign_roles(1000, 500, alike=True)
    assert len(classes[roles.fit[:100]].unique()) == 10


def test_the_judge_counts_by_hand() -> None:
    before = torch.tensor([[3.0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3], [3, 0, 0, 0]])
    after = torch.tensor([[0.0, 0, 3, 0], [0, 0, 3, 0], [0, 9, 0, 3], [3, 0, 0, 0]])
    judge = Judge(before, torch.tensor([0, 1, 2, 0]), MISSION)
    verdict = judge.verdict(after)
    assert verdict.loss_pp == 25.0  # one of four; class 1, outside the mission, does not count
    assert verdict.worst_class_loss_pp == 50.0  # one of two of the first class
    same = judge.verdict(before)
    assert (same.loss_pp, same.expected_loss_pp, same.estimate_pp) == (0.0, 0.0, 0.0)
    assert (same.uncertain_pp, same.n_images, same.n_images_of_rarest) == (25.0, 4, 1)
    assert judge.allows(Budget(30.0), verdict)
    # A class of one image cannot tell less than that one.
    assert judge.allows(Budget(30.0, max_class_loss_pp=40.0), verdict)
    more = Judge(before.repeat(4, 1), torch.tensor([0, 1, 2, 0] * 4), MISSION)
    many = more.verdict(after.repeat(4, 1))
    assert not more.allows(Budget(30.0, max_class_loss_pp=40.0), many)
    assert not judge.allows(Budget(20.0), verdict)


def test_classes_count_by_their_shares_of_the_report() -> None:
    """One class is won, another lost in part: it depends on how often each is to be seen."""
    n, mission = 600, type(MISSION)((0, 1), ("a", "b"))
    labels = torch.arange(n) % 2
    before = torch.tensor([[6.0, 0.0]]).repeat(n, 1)  # takes all for the first class
    after = before.clone()
    after[labels == 1] = torch.tensor([0.0, 6.0])
    after[:60] = torch.tensor([[0.0, 6.0], [6.0, 0.0]]).repeat(30, 1)  # a tenth of both goes wrong
    losses = np.array([10.0, -90.0])
    for shares in [(1, 1), (3, 1), (1, 9)]:
        verdict = Judge(before, labels, mission, shares=shares).verdict(after)
        found = float(losses @ shares) / sum(shares)
        assert verdict.estimate_pp == pytest.approx(found, abs=1.0)
        assert verdict.loss_pp == pytest.approx(-40.0), "counted as the images come"
        assert verdict.original_wrong_pp == pytest.approx(100 * shares[1] / sum(shares))
    same = [Judge(before, labels, mission, shares=given).verdict(after) for given in (None, (7, 7))]
    assert same[0] == same[1]
    assert verdict.class_estimates_pp == pytest.approx(same[0].class_estimates_pp)


def test_images_on_which_nothing_changes_are_no_proof_that_nothing_does() -> None:
    """Of 0 errors of n images, half an error is left to chance: its share is the least error."""
    for n in (50, 200):
        same = _changed(n, 0.0, 3e-4)
        assert same.estimate_pp < 0.1
        assert same.estimate_uncertain_pp >= 50 / n


def _changed(n: int, wrong: float, hopes: float, seed: int = 0) -> Verdict:
    """Of ``n`` images of two classes, a share goes wrong; probabilities expect another."""
    rng = np.random.default_rng(seed)
    mission = type(MISSION)((0, 1), ("a", "b"))
    labels = torch.arange(n) % 2
    before, after = torch.zeros(n, 2), torch.zeros(n, 2)
    before[torch.arange(n), labels] = 8.0  # right and nearly certain
    # A margin of which squared probabilities expect ``hopes`` errors.
    after[torch.arange(n), labels] = float(np.log((1 - hopes) / hopes)) / 2
    flip = torch.from_numpy(rng.random(n) < wrong)
    after[flip] = after[flip].flip(1)
    return Judge(before, labels, mission).verdict(after)


def test_with_few_images_the_estimate_follows_probabilities_and_with_many_errors() -> None:
    few, many = _changed(40, 0.2, 0.1), _changed(20_000, 0.2, 0.1)
    counted = [
        (v.estimate_pp - v.expected_loss_pp) / (v.loss_pp - v.expected_loss_pp) for v in (few, many)
    ]
    assert counted[0] < counted[1]
    assert counted[1] > 0.9
    for verdict in (few, many):
        low, high = sorted((verdict.loss_pp, verdict.expected_loss_pp))
        assert low - 1e-9 <= verdict.estimate_pp <= high + 1e-9
    assert many.estimate_uncertain_pp < few.estimate_uncertain_pp


def test_the_interval_holds_what_is_found() -> None:
    """Images drawn 200 times, whose loss is known: 95 % intervals hold it in 90 to 100 %."""
    rng = np.random.default_rng(0)
    held = 0
    mission = type(MISSION)((0, 1), ("a", "b"))
    for _ in range(200):
        p = rng.beta(8, 0.5, 300)  # of the right class; 0.5 is a coin's throw
        labels = torch.zeros(300, dtype=torch.int64)
        odds = torch.from_numpy(np.log(p / (1 - p)))
        # Errors come as often as probabilities say: whose label is which is thrown by them.
        right = torch.from_numpy(rng.random(300) < p)
        after = torch.stack([torch.where(right, odds, -odds), torch.zeros(300)], 1)
        before = torch.tensor([[12.0, 0.0]]).expand(300, 2)
        found = estimate(Judge(before, labels, mission).verdict(after))
        low, high = found.ci95_pp
        truth = 100 * float(np.minimum(p, 1 - p).mean())
        held += low <= truth <= high
    assert held >= 180


def test_classes_that_gain_a_little_do_not_leave_one_error_alone() -> None:
    """Labels make four classes half a point surer; of the fifth one image of twenty goes wrong."""
    rng = np.random.default_rng(2)
    labels = torch.arange(5).repeat_interleave(20)
    losses = torch.from_numpy(rng.normal(-0.5, 0.5, 100))
    losses[80] = 90.0
    assert max(pooled(losses, labels)) < 1.0


@pytest.mark.parametrize(("apart", "drawn"), [(0.0, True), (40.0, False)])
def test_classes_are_drawn_together_as_far_as_chance_explains(apart: float, drawn: bool) -> None:
    rng = np.random.default_rng(1)
    labels = torch.arange(16).repeat_interleave(20)
    truth = torch.where(torch.arange(16) == 3, apart, 2.0)
    losses = 100.0 * torch.from_numpy(rng.random(320) < (truth / 100)[labels].numpy()).double()
    raw = torch.stack([losses[labels == c].mean() for c in range(16)])
    found = torch.tensor(pooled(losses, labels))
    assert float((found - raw.mean()).abs().max()) <= float((raw - raw.mean()).abs().max()) + 1e-9
    if drawn:  # one image of twenty is five points
        assert raw.max() >= 5
        assert found.max() < 4
    else:
        assert abs(float(found[3] - raw[3])) < 0.3 * float(raw[3] - raw.mean())


def test_classes_that_gain_for_certain_say_nothing_of_the_others() -> None:
    """A third of the images of two classes is won; of another a single one of thirty is lost."""
    labels = torch.arange(8).repeat_interleave(30)
    losses = torch.zeros(240, dtype=torch.float64)
    losses[[0, 30, 31]] = 100.0
    for start in (60, 150):
        losses[start : start + 10] = -100.0
    gaining = (labels == 2) | (labels == 5)
    found, without = pooled(losses, labels), pooled(losses[~gaining], labels[~gaining])
    assert found[2] == found[5] == pytest.approx(-100 / 3)
    assert [found[c] for c in (0, 1, 3, 4, 6, 7)] == pytest.approx(without)
    assert max(found) < 4  # of 6.7 that were counted


@pytest.mark.parametrize(
    ("temperature", "seen"), [(1.0, True), (0.95, True), (0.6, False), (1.6, False)]
)
def test_images_on_which_probabilities_are_right_are_known(temperature: float, seen: bool) -> None:
    """Labels drawn by softmax(scores / T): training ends at T = 1, other images lie above.

    Below it a network is less sure than it might be, as label smoothing can make it of any images.
    """
    scores = 8 * torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    labels = torch.multinomial((scores / temperature).softmax(1), 1, generator=draw)[:, 0]
    assert knows(scores, labels) is seen
    assert knows(scores[:50], labels[:50]) is False  # too few to tell
    assert knows(scores, scores.argmax(1)) is False  # without an error no temperature is told


@pytest.mark.parametrize(("most", "seen"), [(1.0, True), (0.95, False)])
def test_of_a_network_that_is_certain_of_nothing_no_images_are_known(
    most: float, seen: bool
) -> None:
    """Labels drawn by the probabilities, as on images of the training; ``most`` is never passed.

    A network whose training smoothed labels, by 0.05 of ten classes, is so on images that are new.
    """
    scores = 8 * torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    said = most * scores.softmax(1) + (1 - most) / 10
    labels = torch.multinomial(said, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    assert knows(said.log(), labels) is seen


def _verdict(loss: float, uncertain: float, worst: float = 0.0) -> Verdict:
    return Verdict(
        loss, loss, (worst,), 0.0, estimate_pp=loss, estimate_uncertain_pp=uncertain,
        class_estimates_pp=(worst, 0.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "uncertain", "worst", "confidence", "within"),
    [
        (0.9, 0.5, 2.0, 0.5, True),  # as likely as not
        (0.9, 0.5, 2.0, 0.7, False),  # 0.9 + 0.52 x 0.5
        (0.7, 0.5, 2.0, 0.7, True),
        (0.7, 0.5, 2.0, 0.95, False),  # 0.7 + 1.64 x 0.5
        (0.1, 0.5, 2.0, 0.95, True),
        (0.1, 0.1, 3.5, 0.7, False),  # the worst class
    ],
)
def test_a_budget_is_held_with_the_confidence_asked_for(
    loss: float, uncertain: float, worst: float, confidence: float, within: bool
) -> None:
    budget, verdict = Budget(1.0, confidence=confidence), _verdict(loss, uncertain, worst)
    assert is_within(budget, verdict) is within
    assert (objection(budget, verdict) == "") is within


def test_the_middle_of_two_verdicts_counts() -> None:
    flattering, strict = _verdict(0.6, 0.2, 1.0), _verdict(1.4, 0.4, 3.0)
    both = estimate(flattering.towards(strict, 0.5))
    assert (both.loss_pp, both.worst_class_pp) == (1.0, 2.0)
    assert both.uncertain_pp == pytest.approx(0.3)


def test_what_a_part_of_the_images_tells_counts_for_all() -> None:
    """Crossed on four tenths, the others as they were: the whole difference is 2.5 times that."""
    before, after = _verdict(0.6, 0.2, 1.0), _verdict(1.0, 0.4, 1.4)
    whole = estimate(before.towards(after, 1 / 0.4))
    assert (whole.loss_pp, whole.worst_class_pp) == (pytest.approx(1.6), pytest.approx(2.0))
    # The difference errs by as much as the two verdicts' errors leave, and is drawn out 2.5 times.
    assert whole.uncertain_pp == pytest.approx((0.2**2 + 2.5**2 * (0.4**2 - 0.2**2)) ** 0.5)


def test_what_is_told_from_a_part_is_as_uncertain_as_it_is() -> None:
    """Of 400 images three fifths are crossed, 300 times: the spread is no more than is claimed."""
    rng = np.random.default_rng(0)
    found, claimed = [], []
    for _ in range(300):
        fitted, new = (rng.random(400) < share for share in (0.01, 0.03))
        crossed = np.where(np.arange(400) < 240, new, fitted)
        verdicts = []
        for wrong in (fitted, crossed):
            labels = torch.zeros(400, dtype=torch.int64)
            before = torch.tensor([[12.0, 0.0]]).expand(400, 2)
            after = torch.where(torch.from_numpy(wrong)[:, None], before.flip(1), before)
            mission = type(MISSION)((0, 1), ("a", "b"))
            verdicts.append(Judge(before, labels, mission).verdict(after))
        estimated = estimate(verdicts[0].towards(verdicts[1], 400 / 240))
        found.append(estimated.loss_pp)
        claimed.append(estimated.uncertain_pp)
    assert np.mean(found) == pytest.approx(3.0, abs=0.2)
    assert np.std(found) < 1.25 * np.mean(claimed)


@pytest.mark.parametrize("shares", [None, (1, 1)])
def test_a_class_of_two_images_that_counts_for_half_leaves_more_to_chance(shares) -> None:
    labels = torch.tensor([0] * 100 + [1] * 2)
    before = torch.zeros(102, 2)
    before[torch.arange(102), labels] = 12.0
    mission = type(MISSION)((0, 1), ("a", "b"))
    verdict = Judge(before, labels, mission, shares=shares).verdict(before)
    expected = 50 / 102 if shares is None else 50 * (0.25 / 100 + 0.25 / 2)
    assert verdict.estimate_uncertain_pp == pytest.approx(expected, rel=0.05)


def test_what_may_mislead_makes_less_certain() -> None:
    assert _verdict(0.6, 0.3, 1.0).less_certain(0.4).estimate_uncertain_pp == pytest.approx(0.5)


def test_losses_are_raised_and_gains_are_not() -> None:
    assert estimate(_verdict(1.0, 0.2, 2.0).raised(0.5)).loss_pp == 1.5
    assert estimate(_verdict(-1.0, 0.2, -2.0).raised(0.5)).loss_pp == -1.0


@pytest.mark.parametrize(
    ("wrong_pp", "met"),
    [
        (0.0, False),  # what seems to be gained is chance, and so much chance may hide a loss
        (1.0, False),
        (9.0, True),  # of nine points that are wrong, two may well be gained
    ],
)
def test_a_gain_counts_where_there_is_something_to_gain(wrong_pp: float, *, met: bool) -> None:
    seems_better = replace(_verdict(-2.1, 2.7, 0.0), original_wrong_pp=wrong_pp)
    assert is_within(Budget(1.0, max_class_loss_pp=30.0), seems_better) is met


def test_the_judge_knows_what_the_original_gets_wrong() -> None:
    labels_n = torch.tensor([0, 0, 1, 1, 0])
    scores_nk = torch.eye(4)[torch.tensor([0, 0, 0, 1, 1])] * 5  # the third and the last are wrong
    judge = Judge(scores_nk, labels_n, type(MISSION)((0, 1), ("a", "b")))
    assert judge.verdict(scores_nk).original_wrong_pp == pytest.approx(40.0)
