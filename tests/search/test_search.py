"""The search: scores, units, how a saving is spread over sites, and that budgets hold."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillnet.atlas import Atlas, collect
from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.cut.plan import removed_classes
from distillnet.errors import InputError
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.replay import Replay, masked_scores
from distillnet.images import Batch, ImageRef
from distillnet.search import SCORES, Budget, Findings, Found, search_paper
from distillnet.search.curves import Curve, _power_law, allocate
from distillnet.search.paper import _largest
from distillnet.search.readings import READINGS
from distillnet.search.units import Unit, channel_units, neuron_units

MISSION = Mission((0, 2, 3), ("a", "c", "d"))


class Residual(nn.Module):
    """Two convolutions tied by an add, one that is free, four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 16, 3, padding=1)
        self.back = nn.Conv2d(16, 12, 3, padding=1)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.back(self.inner(x).relu())).relu()
        return self.fc(x.mean((2, 3)))


class Hidden(nn.Module):
    """Its MACs are in the convolution, its parameters in a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden, self.fc = nn.Linear(256, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.features(x).flatten(1)).relu())


Network = tuple[Graph, Channels, Atlas, Tensor, Tensor]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return prepared(Residual, tmp_path_factory.mktemp("atlas"))


def prepared(kind: type[Residual | Hidden], directory: Path) -> Network:
    """A random network, images, and as labels what the network says of them: accuracy 1."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = kind().eval()
        x = torch.randn(240, 3, 8, 8)
    graph = capture(module, (8, 8))
    channels = analyse(graph)
    with torch.inference_mode():
        scores = run(graph, {"input": x})[graph.output][:, list(MISSION.indices)]
        scores = scores - scores.mean(0)  # so that each class is right somewhere
    module.fc.bias.data[list(MISSION.indices)] -= (
        run(graph, {"input": x})[graph.output][:, list(MISSION.indices)].mean(0).detach()
    )
    graph = capture(module, (8, 8))
    labels = scores.argmax(1)
    order = labels.argsort(stable=True)
    x, labels = x[order], labels[order]
    refs = tuple(ImageRef(Path(f"{i}.png"), MISSION.indices[c]) for i, c in enumerate(labels))
    batch = Batch(x, torch.tensor([ref.label for ref in refs]), refs)
    atlas = collect(graph, channels, [batch], directory, model="m", weights_sha256="0" * 64)
    return graph, channels, atlas, x, labels


def search(network, budget: Budget, score: str = "heat", **options) -> Found:
    graph, channels, atlas, x, labels = network
    # Any gradients will do: what is tested is that the budget holds.
    gradients = {site: graph[site].shape for site in channels.sites}
    known = Findings(
        graph,
        channels,
        atlas,
        MISSION,
        0,
        {site: torch.linspace(0, 1, math.prod(s)).reshape(s) for site, s in gradients.items()},
    )
    scorer = SCORES[score](known)
    return search_paper(graph, channels, scorer, MISSION, x, labels, budget, **options)


def closed_accuracy(graph: Graph, keep: dict[str, Tensor], x: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        scores = run(graph, {"input": x}, masks=keep)[graph.output]
    return float((scores[:, list(MISSION.indices)].argmax(1) == labels).double().mean())


@pytest.mark.parametrize("score", sorted(SCORES))
@pytest.mark.parametrize("max_loss_pp", [0.0, 2.0, 10.0])
def test_the_loss_stays_within_the_budget(network, score: str, max_loss_pp: float) -> None:
    graph, _, _, x, labels = network
    found = search(network, Budget(max_loss_pp, max_class_loss_pp=100), score)
    before = closed_accuracy(graph, {}, x, labels)
    after = closed_accuracy(graph, dict(found.plan.keep), x, labels)
    assert 100 * (before - after) == pytest.approx(found.verdict.loss_pp)
    assert found.verdict.loss_pp <= max_loss_pp + 1e-9


def test_a_larger_budget_saves_at_least_as_much(network) -> None:
    graph, channels, *_ = network
    left = [
        cost(
            graph, channels, search(network, Budget(loss, max_class_loss_pp=100)).plan
        ).macs_with_partial
        for loss in (2.0, 10.0, 40.0)
    ]
    assert left[0] >= left[1] >= left[2]
    assert left[2] < cost(graph, channels).macs


@pytest.mark.parametrize(
    ("budget", "ratio"),
    [
        (Budget(target_macs=1.5), lambda before, after: before.macs / after.macs),
        (Budget(target_params=2.0), lambda before, after: before.params / after.params),
    ],
)
def test_a_target_is_reached_with_whole_channels(network, budget: Budget, ratio) -> None:
    graph, channels, *_ = network
    found = search(network, budget)
    after = cost(graph, channels, found.plan)
    assert ratio(cost(graph, channels), after) >= (budget.target_macs or budget.target_params)
    assert after.macs == after.macs_with_partial


@pytest.mark.parametrize("reading", sorted(READINGS))
def test_each_reading_spends_no_more_than_the_budget(network, reading: str) -> None:
    """Counted by hand, among the classes that the reading counts among."""
    graph, channels, _, x, labels = network
    budget = Budget(15.0, max_class_loss_pp=100)
    plan = search(network, budget, reading=READINGS[reading]).plan
    assert cost(graph, channels, plan).macs_with_partial < cost(graph, channels).macs
    if not reading.endswith("-open"):
        assert closed_accuracy(graph, dict(plan.keep), x, labels) >= 0.85 - 1e-9
        return
    right = []
    for masks in ({}, dict(plan.keep)):
        with torch.inference_mode():
            answers = run(graph, {"input": x}, masks=masks)[graph.output].argmax(1)
        right.append(float((answers == torch.tensor(MISSION.indices)[labels]).double().mean()))
    assert right[1] >= right[0] - 0.15 - 1e-9


def test_what_has_a_price_is_saved(tmp_path: Path) -> None:
    network = prepared(Hidden, tmp_path)
    budget = Budget(15.0, max_class_loss_pp=100)
    by_macs, by_params = (
        cost(network[0], network[1], search(network, budget, reading=READINGS[reading]).plan)
        for reading in ("price", "price-params")
    )
    assert by_params.params < by_macs.params
    assert by_params.macs_with_partial > by_macs.macs_with_partial


@pytest.mark.parametrize(("reading", "first"), [("front", 0), ("back", -1)])
def test_the_first_layer_takes_all_that_it_can(network, reading: str, first: int) -> None:
    graph, channels, _, x, labels = network
    whole = search(network, Budget(10.0), reading=READINGS[reading])
    shared = search(network, Budget(10.0), reading=READINGS[f"{reading}-shared"])
    site, n = channels.sites[first], len(channels.sites)
    unit = next(u for u in neuron_units(channels, heat_of(network)) if u.sites == (site,))
    left = {i: keep_of(unit, i / 64).get(site) for i in range(64)}
    for found, allowed in ((whole, 0.1), (shared, 0.1 / n)):

        def good(i: int, allowed: float = allowed) -> bool:
            keep = keep_of(unit, i / 64)
            return closed_accuracy(graph, keep, x, labels) >= 1 - allowed - 1e-9

        # The binary search ends at a share that is good, whose next is not.
        ends = [i for i in range(64) if good(i) and (i == 63 or not good(i + 1))]
        kept = found.plan.keep.get(site)
        assert any(
            left[i] is kept if kept is None else left[i] is not None and left[i].equal(kept)
            for i in ends
        )


@pytest.mark.parametrize("reading", ["activity", "output"])
def test_one_number_is_the_threshold_of_all_layers(network, reading: str) -> None:
    """In means of each layer's output, or as it is: what goes lies below it, what stays above."""
    _, channels, *_ = network
    keep = search(network, Budget(15.0, max_class_loss_pp=100), reading=READINGS[reading]).plan.keep
    gone, stays = [], []
    for site in channels.sites:
        heat = heat_of(network)(site).amax(0)
        heat = heat / heat.mean() if reading == "activity" else heat
        kept = keep.get(site, torch.ones_like(heat, dtype=torch.bool))
        gone.append(heat[~kept].flatten())
        stays.append(heat[kept].flatten())
    threshold = torch.cat(gone).max()
    assert len(torch.cat(gone)) > 100
    # A share is a whole number of neurons, which may round to one less.
    assert all(int((values < threshold).sum()) <= 1 for values in stays)


def heat_of(network):
    graph, channels, atlas, *_ = network
    return SCORES["heat"](Findings(graph, channels, atlas, MISSION, 0))


def keep_of(unit: Unit, share: float) -> dict[str, Tensor]:
    return {site: cut.keep for site, cut in unit.cut(share).items()} if share > 0 else {}


def test_a_replay_masks_for_good_what_stays(network) -> None:
    graph, channels, _, x, _ = network
    masks = {
        site: torch.rand(graph[site].shape, generator=torch.Generator().manual_seed(i)) < 0.7
        for i, site in enumerate(channels.sites)
    }
    replay = Replay(graph, x)
    for i, site in enumerate(channels.sites):
        replay.go_to([site])
        so_far = {s: masks[s] for s in channels.sites[: i + 1]}
        expected = masked_scores(graph, x, so_far)
        assert torch.allclose(replay.scores({site: masks[site]}), expected, atol=1e-6)
        replay.stays({site: masks[site]})


def test_complete_only_removes_whole_channels(network) -> None:
    _, channels, *_ = network
    plan = search(network, Budget(20.0), complete_only_plan=True).plan
    gone = removed_classes(channels, plan)
    for site, keep in plan.keep.items():
        whole = keep.flatten(1)
        assert bool((whole.all(1) | ~whole.any(1)).all())
        assert np.array_equal(gone[channels.of[site]], (~whole.any(1)).numpy())


def test_thresholds_make_the_plan(network) -> None:
    _, _, atlas, *_ = network
    found = search(network, Budget(10.0))
    assert found.met
    for site, threshold in found.thresholds.items():
        heat = atlas.heat(site, MISSION.indices)
        assert torch.equal(found.plan.keep[site], (heat >= threshold).any(0))


@pytest.mark.parametrize("complete_only_plan", [False, True])
def test_the_classes_bitmaps_fuse_to_the_plan(network, complete_only_plan: bool) -> None:
    found = search(network, Budget(30.0), complete_only_plan=complete_only_plan)
    assert found.class_bitmaps.keys() == found.plan.keep.keys()
    for site, keep_k in found.class_bitmaps.items():
        assert len(keep_k) == len(MISSION)
        assert torch.equal(keep_k.any(0), found.plan.keep[site])


@pytest.mark.parametrize("options", [{}, {"complete_only_plan": True}])
def test_what_was_tried_is_what_is_returned(network, options: dict[str, bool]) -> None:
    graph, _, _, x, labels = network
    found = search(network, Budget(60.0), **options)
    before = closed_accuracy(graph, {}, x, labels)
    after = closed_accuracy(graph, dict(found.plan.keep), x, labels)
    assert 100 * (before - after) == pytest.approx(found.verdict.loss_pp)


@pytest.mark.parametrize(("target", "met"), [(1.5, True), (1000.0, False)])
def test_whether_a_target_is_reached_is_said(network, target: float, met: bool) -> None:
    graph, channels, *_ = network
    found = search(network, Budget(target_macs=target))
    reached = cost(graph, channels).macs / cost(graph, channels, found.plan).macs >= target
    assert found.met == reached == met


def test_a_target_that_is_met_already_removes_nothing(network) -> None:
    found = search(network, Budget(target_macs=1.0))
    assert not found.plan.keep


def test_the_search_leaves_no_state(network) -> None:
    first, second = (search(network, Budget(10.0)) for _ in range(2))
    assert first.thresholds == second.thresholds
    assert all(torch.equal(first.plan.keep[s], second.plan.keep[s]) for s in first.plan.keep)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_loss_pp": -1.0}, "--max-loss"),
        ({"max_loss_pp": math.nan}, "--max-loss"),
        ({"target_macs": 0.5}, "--target-macs"),
        ({"target_params": math.nan}, "--target-params"),
        ({"target_macs": math.inf}, "--target-macs"),
        ({"target_macs": 2.0, "target_params": 2.0}, "one of them"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(options: dict[str, float], names: str) -> None:
    with pytest.raises(InputError, match=names):
        Budget(**options)


def test_l1_is_the_sum_of_absolute_weights(network) -> None:
    graph, channels, atlas, *_ = network
    score = SCORES["l1"](Findings(graph, channels, atlas, MISSION, 0))
    by_filter = {
        name: graph.params[f"{name}.weight"].abs().sum((1, 2, 3))
        for name in ("stem", "inner", "back")
    }
    assert torch.allclose(score("inner:relu")[0, :, 0, 0], by_filter["inner"])
    # The add ties stem and back: a channel that both make counts both filters.
    assert torch.allclose(score("stem:relu")[0, :, 3, 2], by_filter["stem"] + by_filter["back"])


def test_random_depends_on_the_seed_alone_and_agrees_within_a_class(network) -> None:
    graph, channels, atlas, *_ = network
    one, again, other = (
        SCORES["random"](Findings(graph, channels, atlas, MISSION, s)) for s in (1, 1, 2)
    )
    site, tied = "stem:relu", channels.site_of["back"]
    assert torch.equal(one(site), again(site))
    assert not torch.equal(one(site), other(site))
    assert torch.equal(one(site)[0, :, 0, 0], one(tied)[0, :, 0, 0])


def test_a_share_of_neurons_falls(network) -> None:
    graph, channels, atlas, *_ = network
    score = SCORES["heat"](Findings(graph, channels, atlas, MISSION, 0))
    for unit, share in itertools.product(neuron_units(channels, score), (0.25, 0.5, 0.9)):
        (cut,) = unit.cut(share).values()
        # Ties and the fused maximum allow a neuron more or less.
        assert (~cut.keep).float().mean().item() == pytest.approx(share, abs=0.02)


def test_tied_sites_are_one_unit_that_is_cut_alike(network) -> None:
    graph, channels, atlas, *_ = network
    score = SCORES["heat"](Findings(graph, channels, atlas, MISSION, 0))
    units = channel_units(graph, channels, score)
    assert {unit.sites for unit in units} == {
        ("stem:relu", channels.site_of["back"]),
        ("inner:relu",),
    }
    tied = next(unit for unit in units if len(unit.sites) == 2)
    first, second = (cut.keep for cut in tied.cut(0.5).values())
    assert torch.equal(first.flatten(1).any(1), second.flatten(1).any(1))
    assert int(first.flatten(1).any(1).sum()) == 6


def test_a_saving_is_spread_where_it_harms_least() -> None:
    shares = np.linspace(0, 0.95, 96)
    # The same saving, harm that differs by a factor of four: with squares as harm, the optimum of
    # independent harms has shares in the ratio of one to four.
    cheap, dear = Curve(shares, shares**2, shares), Curve(shares, 4 * shares**2, shares)
    first, second = allocate([cheap, dear], 1.0, 0.5)
    assert first + second == pytest.approx(0.5, abs=0.02)
    assert first == pytest.approx(4 * second, abs=0.05)
    # With harms in step (amplitudes) only the cheaper one pays, as far as it goes.
    first, second = allocate([cheap, dear], 0.5, 0.5)
    assert second == 0


@pytest.mark.parametrize("limit", [0.0, 0.004, 0.01, 0.13, 0.5, 0.999])
def test_the_largest_good_saving_is_found(limit: float) -> None:
    found = _largest(lambda saving: saving <= limit, 0.0)
    assert found <= limit + 1e-9
    assert limit - found < 0.0101 or found >= 0.98


def test_power_laws_are_interpolated_exactly() -> None:
    xs = (0.0, 0.1, 0.3, 0.9)
    ys = tuple(7 * x**3 for x in xs)
    for x in (0.15, 0.3, 0.5, 0.9):
        assert _power_law(x, xs, ys) == pytest.approx(7 * x**3)
    assert _power_law(0.0, xs, ys) == 0
