"""The best search as a whole: what comes back keeps to what was asked for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit.teacher import teach_all
from distillnet.search import (
    Budget,
    SearchSettings,
    Verdict,
    candidates,
    explorer,
    open_search,
    teachers,
)
from distillnet.search.store import NOWHERE, key_of
from small_network import MISSION, accuracy, find, random, sized, sized_images


@pytest.mark.slow
def test_statistics_images_judge_as_well_where_they_may(module, labels: Tensor) -> None:
    with torch.inference_mode():
        others = module(random(80, 3, 16, 16, seed=2))[:, list(MISSION.indices)].argmax(1)
    alone = find(module, labels, Budget(4.0))
    both = find(module, labels, Budget(4.0), labels_statistics_n=others)
    assert (alone.verdict.n_images, both.verdict.n_images) == (150, 230)
    # Labels that are all wrong show: the original is right nowhere, so nothing can be lost there.
    wrong_n = (others + 1) % 3
    wrong = find(module, labels, Budget(4.0), labels_statistics_n=wrong_n, fit_labels=False)
    left = [cost(f.graph, analyse(f.graph), f.plan).macs for f in (wrong, both)]
    assert left[0] < left[1]


@pytest.mark.slow
def test_known_images_say_nothing_of_what_labels_win(module, labels: Tensor) -> None:
    """A search judges by them as if there were no labels; new images tell the difference."""
    with torch.inference_mode():
        others = module(random(80, 3, 16, 16, seed=2))[:, list(MISSION.indices)].argmax(1)

    def verdict(*, fit_labels: bool, seen: bool) -> Verdict:
        options = {"labels_statistics_n": others, "fit_labels": fit_labels, "seen": seen}
        return find(module, labels, Budget(8.0), **options).verdict

    assert verdict(fit_labels=True, seen=True) == verdict(fit_labels=False, seen=True)
    assert verdict(fit_labels=True, seen=False) != verdict(fit_labels=False, seen=False)


@pytest.mark.slow
def test_a_teacher_at_full_size_that_does_harm_is_not_asked_again(module, labels: Tensor) -> None:
    """``teach`` as it is, and one that says nonsense wherever the sizes differ."""
    asked = []

    def lie(original: Graph, students: dict, x: Tensor, **options: object) -> dict:
        true = teach_all(original, students, x, **options)
        asked.append(original.input.shape[1:] not in students)
        if not asked[-1]:
            return true
        (size, teacher) = next(iter(true.items()))
        return {size: replace(teacher, rows={k: 0 * v for k, v in teacher.rows.items()})}

    sizes = [(16, 16), (14, 14), (12, 12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teachers, "teach_all", lie)
        open_search(sized(module), sizes, MISSION, labels)(Budget(8.0))
    assert asked.count(True) == 1
    assert asked.count(False) >= 2  # once a size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "times"), [({"seen": True}, 0), ({"seen": False, "fit_labels": True}, 1)]
)
def test_the_uncut_network_learns_only_where_a_candidate_does_not_tell(
    module, labels: Tensor, options: dict[str, bool], times: int
) -> None:
    """All are as sure here; of a candidate that labels taught, too, that says nothing."""
    asked: list[str] = []

    def noted(what: str, *args: Any, **more: object) -> str:
        asked.append(what)
        return key_of(what, *args, **more)

    others = torch.cat([labels, labels])[:80]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "key_of", noted)
        patch.setattr(candidates, "certainty", lambda scores, *_: torch.ones(len(scores)))
        search = open_search(
            sized(module),
            [(16, 16), (14, 14), (12, 12)],
            MISSION,
            labels,
            SearchSettings(**options),
            labels_statistics_n=others,
        )
        search(Budget(8.0))
    assert asked.count("taught") == times


def test_the_user_may_say_whether_images_are_known(module, labels: Tensor) -> None:
    assert find(module, labels, Budget(8.0), seen=True).seen
    assert not find(module, labels, Budget(8.0), seen=False).seen


def test_the_front_is_told_as_it_grows(module, labels: Tensor) -> None:
    told: list[list[tuple[float, float, bool]]] = []
    store = replace(NOWHERE, on_front=told.append)
    found = find(module, labels, Budget(8.0), store=store)
    assert len(told) >= 3
    for points in told:
        ratios, losses, _ = zip(*points, strict=True)
        assert list(ratios) == sorted(ratios, reverse=True)
        assert list(losses) == sorted(losses, reverse=True)
    assert {ratio for ratio, _, within in told[-1] if within}
    assert len(told[-1]) >= len(found.front) - 1  # the chosen one may lie beside it


def test_without_splitting_no_layer_is_split(module, labels: Tensor) -> None:
    assert find(module, labels, Budget(4.0)).plan.splits != {}
    assert find(module, labels, Budget(4.0), split=False).plan.splits == {}


@pytest.mark.parametrize("max_loss_pp", [4.0, 10.0])
def test_the_losses_are_within_the_budget(module, labels: Tensor, max_loss_pp: float) -> None:
    found = find(module, labels, Budget(max_loss_pp))
    assert found.met
    assert found.expected.loss_pp <= max_loss_pp
    assert found.expected.worst_class_pp <= 3 * max_loss_pp + 1e-9
    low, high = found.expected.ci95_pp
    assert low <= found.expected.loss_pp <= high
    assert found.stopped_by.startswith(("the best smaller network", "the lack of"))
    small = cost(found.graph, analyse(found.graph), found.plan)
    assert small.macs < cost(found.graph, analyse(found.graph)).macs / 1.1
    # Refitted on these images as well, it does not do worse than was judged.
    noise = 2 * found.verdict.uncertain_pp
    assert 100 * (1 - accuracy(found, labels)) <= found.verdict.loss_pp + noise


@pytest.mark.parametrize("multiple", [1, 4])
def test_rounded_networks_are_found_as_well(module, labels: Tensor, multiple: int) -> None:
    found = find(module, labels, Budget(8.0), round_to=multiple)
    assert found.met
    small = compact(found.graph, analyse(found.graph), found.plan)
    widths = {node.name: node.shape[0] for node in small.nodes if node.op == "conv"}
    whole = {node.name: node.shape[0] for node in found.graph.nodes if node.op == "conv"}
    # A layer that is cut away altogether keeps one masked channel.
    assert all(n % multiple == 0 or n in (1, whole.get(name)) for name, n in widths.items())
    assert cost(small, analyse(small)).macs < cost(found.graph, analyse(found.graph)).macs


def test_the_front_falls_and_holds_what_is_returned(module, labels: Tensor) -> None:
    found = find(module, labels, Budget(3.0))
    macs = [cost(p.graph, analyse(p.graph), p.plan).macs for p in found.front]
    # What is returned may be beaten by one that loses less, but too much where errors are counted.
    others = [p for p in found.front if p.plan is not found.plan]
    losses = [p.expected.loss_pp for p in others]
    assert macs == sorted(macs)
    assert losses == sorted(losses, reverse=True)
    assert sum(p.plan is found.plan for p in found.front) == 1
    assert all(p.front == () for p in found.front)


def test_a_budget_that_nothing_meets_gives_the_network_with_its_head_cut(module, labels) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "is_within", lambda budget, verdict: False)
        found = find(module, labels, Budget(0.0))
    assert not found.met
    assert found.plan.keep == {}
    assert found.plan.outputs == MISSION.indices
    x = sized_images(found)
    with torch.inference_mode():
        want = module(x)[:, list(MISSION.indices)]
        small = compact(found.graph, analyse(found.graph), found.plan)
        assert torch.allclose(run(small, {small.input.name: x})[small.output], want, atol=1e-5)


@pytest.mark.parametrize(
    ("budget", "ratio"),
    [
        (Budget(target_macs=3.0), lambda before, after: before.macs / after.macs),
        (Budget(target_params=2.0), lambda before, after: before.params / after.params),
    ],
    ids=["macs", "params"],
)
def test_a_target_is_reached_and_not_far_exceeded(module, labels, budget, ratio) -> None:
    found = open_search(sized(module), [(16, 16), (8, 8)], MISSION, labels)(budget)
    original = capture(module, (16, 16))
    before = cost(original, analyse(original))
    after = cost(found.graph, analyse(found.graph), found.plan)
    target = budget.target_macs or budget.target_params
    assert target <= ratio(before, after)
    if found.graph.input.shape[1] == 16:
        assert ratio(before, after) < 1.3 * target


@pytest.mark.slow
def test_a_smaller_input_is_one_more_knob(module, labels: Tensor) -> None:
    """With sizes to choose from, MACs are not many more than without.

    Orders are then measured at another size, and the counts of 150 images are noise.
    """
    alone = find(module, labels, Budget(8.0))
    free = open_search(sized(module), [(16, 16), (12, 12), (8, 8)], MISSION, labels)(Budget(8.0))
    left = [cost(f.graph, analyse(f.graph), f.plan).macs for f in (alone, free)]
    assert left[1] <= 2 * left[0]
