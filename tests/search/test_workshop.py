"""How candidates are fitted and judged: by which images, and that it does not depend on the way."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distillnet.classes import Mission
from distillnet.cut.plan import Plan
from distillnet.graph import Graph
from distillnet.search import Judge, SearchSettings
from distillnet.search import candidates as module_under_test
from distillnet.search.candidates import Candidate, Workshop
from distillnet.search.roles import Roles
from small_network import MISSION, random, sized


def _workshop(module: nn.Module, labels: Tensor, *, alike: bool, views: bool = False) -> Workshop:
    """With statistics images that judge, too, where they are alike."""
    with torch.inference_mode():
        others = module(random(80, 3, 16, 16, seed=2))[:, list(MISSION.indices)].argmax(1)
    labels_n = torch.cat([others, labels]) if alike else labels
    settings = SearchSettings(more_views=views, seen=False)
    return Workshop(sized(module), (16, 16), MISSION, labels_n, settings)


def _half(workshop: Workshop) -> Candidate:
    workshop.go_to((12, 12))
    found = workshop.make(lambda cut: workshop.work_left(cut) <= workshop.work / 2)
    assert found is not None
    return found


def _same(one: Graph, other: Graph) -> bool:
    return all(torch.equal(one.params[name], other.params[name]) for name in one.params)


@pytest.mark.parametrize("alike", [True, False])
def test_without_none_of_the_images_it_is_what_is_returned(
    module, labels: Tensor, alike: bool
) -> None:
    workshop = _workshop(module, labels, alike=alike)
    candidate = _half(workshop)
    nobody = torch.zeros(230, dtype=torch.bool)
    whole = workshop.refit_on_all(candidate)
    assert _same(workshop.refit_without(candidate, nobody), whole)
    some = nobody.clone()
    some[::5] = True
    assert not _same(workshop.refit_without(candidate, some), whole)


@pytest.mark.parametrize("alike", [True, False])
def test_a_part_is_fitted_alike_however_the_search_came_there(
    module, labels: Tensor, alike: bool
) -> None:
    """As by a search that has just been read from its folder, which has asked the original less."""
    some = torch.zeros(230, dtype=torch.bool)
    some[3::7] = True
    first = _workshop(module, labels, alike=alike)
    candidate = _half(first)
    first.cross_validate(candidate)
    later = _workshop(module, labels, alike=alike)
    later.teacher_chosen, later.teachers.at_own_size = True, first.teachers.at_own_size
    later.go_to((12, 12))
    later.needs = first.needs
    graphs = [one.refit_without(candidate, some) for one in (first, later)]
    assert _same(*graphs)


@pytest.mark.parametrize("views", [False, True])
def test_the_last_layer_is_fitted_to_labels_of_images_that_do_not_judge(
    module, labels: Tensor, monkeypatch, views: bool
) -> None:
    """Two classes change their names: the search images tell that what learns them is wrong."""
    if views:
        monkeypatch.setattr(module_under_test, "look", _four_views(module_under_test.look))
    with torch.inference_mode():
        others = module(random(80, 3, 16, 16, seed=2))[:, list(MISSION.indices)].argmax(1)
    swapped = torch.tensor([1, 0, 2])[others]
    found = {}
    for name, fitted in (("none", None), ("true", others), ("swapped", swapped)):
        settings = SearchSettings(more_views=views, seen=False)
        workshop = Workshop(
            sized(module), (16, 16), MISSION, labels, settings, labels_fitted_n=fitted
        )
        assert torch.equal(workshop.judge.labels_n, labels)
        found[name] = _half(workshop)
        assert workshop.cross_validate(found[name]) is None, "others judge already"
    graphs = {name: candidate.graph for name, candidate in found.items()}
    for name in graphs["none"].params:
        same = torch.equal(graphs["none"].params[name], graphs["true"].params[name])
        assert same == (not name.startswith("fc"))
    losses = {name: candidate.verdict.loss_pp for name, candidate in found.items()}
    assert losses["true"] <= losses["none"] + 2
    assert losses["swapped"] > losses["none"] + 20


class _Flattered(Workshop):
    """Of 600 images 300 were fitted, and never err; a tenth of all others does."""

    def __init__(self, crossed: int) -> None:
        self.mission = Mission((0, 1), ("a", "b"))
        of_n = torch.arange(600) // 10 % 2
        right = torch.zeros(600, 2)
        right[torch.arange(600), of_n] = 9.0
        self.honest_nk = right.clone()
        self.honest_nk[::10] = right[::10].flip(1)
        self.judge = Judge(right, of_n, self.mission)
        self.roles = Roles(torch.arange(300), torch.arange(600))
        self.crossed, self.n_fitted = crossed, 300
        self.scores_nk = self.honest_nk.clone()
        self.scores_nk[:300] = right[:300]

    def _fold_n(self) -> Tensor:
        folds = torch.full((600,), -1)
        folds[:300] = (torch.arange(300) >= self.crossed).long() * 5
        return folds

    def cross_scores(self, candidate: Candidate) -> Tensor:
        scores = self.scores_nk.clone()
        scores[: self.crossed] = self.honest_nk[: self.crossed]
        return scores


@pytest.mark.parametrize("crossed", [300, 150, 60])
def test_a_part_that_is_judged_by_others_stands_for_all_that_were_fitted(
    monkeypatch, crossed: int
) -> None:
    """A tenth goes wrong, whatever part of the fitted images tells so; 5 % seem to."""
    monkeypatch.setattr(module_under_test, "folds_crossed", lambda n: 1)
    workshop = _Flattered(crossed)
    verdict = workshop.judge.verdict(workshop.scores_nk)
    candidate = Candidate((8, 8), Plan(), None, 1.0, workshop.scores_nk, verdict)
    assert verdict.estimate_pp == pytest.approx(5.0, abs=0.5)
    crossed_verdict = workshop.cross_validate(candidate)
    assert crossed_verdict is not None
    assert crossed_verdict.estimate_pp == pytest.approx(10.0, abs=1.0)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_class_of_which_there_is_no_image_is_expected_to_lose_what_all_do(missing: int) -> None:
    """A fifth of a few images of many classes, which is all that tells of a part of a training."""
    others = [c for c in range(3) if c != missing]
    of_n = torch.tensor(others).repeat(20)
    before, after = 3 * random(40, 5, seed=1), 3 * random(40, 5, seed=2)
    verdict = Judge(before, of_n, MISSION).verdict(after)
    assert len(verdict.class_losses_pp) == len(verdict.class_estimates_pp) == 3
    assert verdict.n_images_of_rarest == 0
    assert verdict.class_losses_pp[missing] == pytest.approx(verdict.loss_pp)
    assert all(math.isfinite(x) for x in verdict.class_estimates_pp)


def test_the_uncut_network_is_asked_about_images_it_did_not_learn_in_any_view(
    module, labels: Tensor, monkeypatch
) -> None:
    """Of 230 images, in four views each, four fifths teach, in all views; the others tell."""
    monkeypatch.setattr(module_under_test, "look", _four_views(module_under_test.look))
    workshop = _workshop(module, labels, alike=True, views=True)
    assert workshop.original.views == 4
    taught, asked = [], []

    class Reached(Exception):  # noqa: N818
        pass

    def refit(plan: Plan, images: Tensor, **_: object) -> None:
        taught.append(images)
        raise Reached

    def scores(graph: Graph, plan: Plan, images: Tensor) -> Tensor:
        asked.append(images)
        return torch.zeros(len(images), 5)

    monkeypatch.setattr(workshop, "_refit", refit)
    monkeypatch.setattr(workshop, "_scores", scores)
    workshop.go_to((12, 12))
    with pytest.raises(Reached):
        workshop._learnt_well(torch.zeros(len(workshop.roles.judge), 5))
    images = workshop.original.image_n
    assert len(asked[0]) == 230 // 5
    assert not set(images[asked[0]].tolist()) & set(images[taught[0]].tolist())
    fit = workshop.roles.fit
    assert len(fit) == 920
    assert len(taught[0]) == 920 * 4 // 5


def _four_views(look: Callable) -> Callable:
    """The small network takes its mirrored images for others: here they are kept all the same."""

    def wanted(sized, labels_n: Tensor, mission: Mission, **how: object):
        views = look(sized, labels_n, mission, more=False, seed=0)
        n = len(sized.x_nchw)
        move = torch.eye(2, 3).expand(n, 2, 3)
        return replace(views, moves=(move,) * 3, said=views.said * 4)

    return wanted
