"""Where images put a rule's threshold: as many of the mission are refused as were allowed."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atlases import atlas_of, model, pictures
from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.images import open_images
from distillnet.job.options import Options
from distillnet.job.provenance import digests
from distillnet.missions.retargeting import retarget
from distillnet.missions.unknown import Rule, fit_from_atlas, images_apart, place_by_images, placed
from distillnet.missions.unknown.features import Measured
from distillnet.missions.unknown.regression import margins
from distillnet.search import Budget

RULE = Rule(2.0, (0.3, -0.1), 1.0)


def _seen(n: int, draw: torch.Generator, loud: float = 1.0) -> Measured:
    features = torch.randn(n, 2, generator=draw, dtype=torch.float64)
    scores = loud * (5 + torch.randn(n, 3, generator=draw, dtype=torch.float64))
    return Measured(features, scores, torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize(("n", "share"), [(19, 0.05), (30, 0.05), (200, 0.05), (9, 0.1), (7, 0.5)])
def test_fresh_images_are_refused_as_often_as_allowed_however_loud_and_few(
    n: int, share: float
) -> None:
    """On average k of n + 1, k / (n + 1) <= share: what holds of any continuous margins."""
    draw, refused = torch.Generator().manual_seed(0), []
    fresh = _seen(4000, draw, loud=1.7)
    for _ in range(400):
        rule, _ = placed(RULE, _seen(n, draw, loud=1.7), max_false_reject=share)
        assert (rule.temperature, rule.weight) == (RULE.temperature, RULE.weight)
        refused.append(float((margins(fresh, rule) < 0).double().mean()))
    want = math.floor(share * (n + 1) + 1e-9) / (n + 1)
    assert want <= share
    error = float(torch.tensor(refused).std()) / 400**0.5 + (share / 4000) ** 0.5
    assert sum(refused) / 400 == pytest.approx(want, abs=4 * error)


def test_images_of_other_things_put_it_where_few_enough_are_accepted() -> None:
    draw = torch.Generator().manual_seed(1)
    known, others = _seen(50, draw), _seen(40, draw, loud=0.8)
    rule, told = placed(RULE, known, others, max_false_accept=0.1)
    assert told.point.false_accept == pytest.approx(0.1)
    for of, wanted in ((known, told.point.false_reject), (others, 0.9)):
        refused = float((margins(of, rule) < 0).double().mean())
        assert refused == pytest.approx(wanted, abs=1.01 / len(of))  # the one that lies on it


def test_too_few_images_put_no_threshold() -> None:
    draw = torch.Generator().manual_seed(2)
    with pytest.raises(InputError, match=r"found 18 images.*expected 19 or more"):
        placed(RULE, _seen(18, draw))
    with pytest.raises(InputError, match="expected 99 or more"):
        placed(RULE, _seen(98, draw), max_false_reject=0.01)


@pytest.mark.parametrize(
    ("train", "val", "copies", "of_two", "where"),
    [
        (30, 5, 0, (60, 10), "train/"),
        (30, 5, 4, (52, 10), "train/"),
        (9, 5, 0, (0, 10), "train/"),
        (30, 0, 0, (30, 30), "one half"),
        (18, 0, 0, (0, 36), "one half"),
    ],
)
def test_no_image_both_puts_the_threshold_and_is_reported_on(
    tmp_path: Path, train: int, val: int, copies: int, of_two: tuple[int, int], where: str
) -> None:
    folder = pictures(tmp_path / "train" if val else tmp_path / "all", train)
    if val:
        held = pictures(tmp_path / "val", val, seed=5)
        for c in (0, 2):
            for i in range(copies):
                shutil.copy(held / f"{c}/{i:03}.png", folder / f"{c}/{i:03}.png")
    folders = open_images(tmp_path if val else folder, model().classes, [0, 2])
    apart = images_apart(folders, [0, 2])
    assert (len(apart.placing), len(apart.report), apart.where) == (*of_two, where)
    assert not set(digests(apart.placing)) & set(digests(apart.report))
    if apart.placing.refs and not copies:  # as many of each class
        assert len(set(apart.placing.counts().values())) == 1


def test_a_run_from_an_atlas_gets_its_threshold_from_images(tmp_path: Path) -> None:
    """Of images like those that put it, 5 % are refused, whatever the atlas's samples told."""
    atlas = atlas_of(pictures(tmp_path / "photos", 30), tmp_path / "atlas")
    mission = Mission((0, 2), ("0", "2"))
    done = retarget(
        atlas, model(), mission, Options(budget=Budget(target_macs=1.5), optimise="macs")
    )
    guess, _ = fit_from_atlas(atlas, done)
    off = replace(guess, bias=guess.bias - 10.0)  # as on a louder network: none is refused
    fresh = open_images(pictures(tmp_path / "fresh", 200, seed=9), model().classes, mission)
    apart = images_apart(fresh, mission.indices)
    rules = [place_by_images(rule, done, apart) for rule in (guess, off)]
    for rule, told, unreadable in rules:
        assert rule.weight == guess.weight
        assert rule.bias == pytest.approx(rules[0][0].bias)
        assert (told.n_known, told.n_unknown, unreadable) == (len(apart.report), 0, ())
        assert 0.015 < told.point.false_reject < 0.1  # 200 put it, 200 are counted
