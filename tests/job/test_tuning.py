"""--tune: how far the search goes, which network is returned, and that its run is what it says."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distillnet as dn
from distillnet.cut.plan import Plan
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.images import load_all
from distillnet.job import tuning
from distillnet.job.distill import distill
from distillnet.job.runs import write_run
from distillnet.job.tuning import Choice, _promised, choose, provisional, search_and_tune
from distillnet.models import Model
from distillnet.refit.tune import TuneSettings
from distillnet.search import Found, Verdict

_NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 4),
    )
"""
_CLASSES = (0, 1, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network of random weights whose scores are alike on average, as trained ones are."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "net.py").write_text(_NET)
    how = {"input_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with torch.random.fork_rng():
        loaded = dn.load_model(f"{folder / 'net.py'}:net", **how)
        head = loaded.module[-1]
        x = (torch.from_numpy(_pixels(300, seed=1)).movedim(3, 1) / 255 - 0.5) / 0.5
        with torch.no_grad():
            y = loaded.module(x)
            head.weight /= y.std(0).mean() / 4
            head.bias.copy_(-(loaded.module(x) - head.bias).mean(0))
        torch.save(loaded.module.state_dict(), folder / "weights.pt")
        return dn.load_model(f"{folder / 'net.py'}:net", weights=folder / "weights.pt", **how)


def _pixels(n: int, seed: int) -> np.ndarray:
    """Noise of some colour (N, H, W, 3)."""
    draw = np.random.default_rng(seed)
    colours, noise = draw.uniform(0, 255, (n, 1, 1, 3)), draw.normal(0, 60, (n, 16, 16, 3))
    return (colours + noise).clip(0, 255).astype(np.float32)


@pytest.fixture(scope="module")
def photos(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in the folders of the classes that the network takes them for."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = _pixels(500, seed=2).round()
    x = (torch.from_numpy(pixels).movedim(3, 1) / 255 - 0.5) / 0.5
    with torch.no_grad():
        best = model.module(x)[:, list(_CLASSES)].argmax(1)
    for i, k in enumerate(best.tolist()):
        place = folder / str(_CLASSES[k])
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels[i].astype(np.uint8)).save(place / f"{i:03}.png")
    return folder


def test_a_tuned_run_is_what_its_figures_say(
    model: Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a network learns by larger steps.
    large = partial(TuneSettings, step=0.002, temperature=1.0, share=1.0)
    monkeypatch.setattr(tuning, "TuneSettings", large)
    mission = dn.parse_mission("0,1,3", model.classes)
    images = dn.split_images(dn.open_images(photos, model.classes, mission.indices))
    stages = []
    for name in ("atlas", "run"):
        (tmp_path / name).mkdir()
    options = dn.Options(budget=dn.Budget(target_macs=12.0), tune=True, optimise="macs")
    done = distill(
        model, mission, images, tmp_path / "atlas", options,
        on_progress=lambda stage, n, of: stages.append((stage, n, of)),
    )  # fmt: skip
    write_run(done, tmp_path / "run")
    opened = dn.open_run(tmp_path / "run")
    result = opened.result
    assert result["tuned"]
    assert opened.options["tune"]
    assert result["seconds"]["tune"] > 0
    told = [(n, of) for stage, n, of in stages if stage == "tune"]
    assert told == sorted(told, key=lambda pair: pair[0] / pair[1])
    assert told[-1] == (1, 1)
    assert result["mac_ratio"] >= 12
    # The programme holds the tuned weights: scores and figures are those of the tuned graph.
    val = load_all(images.val, opened.preprocessing)
    network = torch.export.load(tmp_path / "run" / "model.pt2").module()
    tuned = done.found.tuned
    assert tuned is not None
    y = network(val.x_nchw)
    want = run(tuned, {tuned.input.name: val.x_nchw})[tuned.output]
    assert torch.allclose(y, want[:, list(_CLASSES)], atol=1e-3)
    untuned = replace(done.found, tuned=None).compact()
    other = run(untuned, {untuned.input.name: val.x_nchw})[untuned.output]
    assert not torch.allclose(y, other, atol=1e-2)
    assert {n.name: n.shape for n in untuned.nodes} == {n.name: n.shape for n in done.compact.nodes}
    right = [_CLASSES[k] == c for k, c in zip(y.argmax(1), val.labels_n, strict=True)]
    assert sum(right) / len(right) == pytest.approx(result["distilled"]["accuracy"])
    hits = float((want.argmax(1) == val.labels_n).double().mean())
    assert hits == pytest.approx(result["distilled"]["accuracy_open"])
    # So does its entry in the front.
    points = [json.loads(p.read_text()) for p in (tmp_path / "run/front").glob("*/result.json")]
    assert [p["distilled"] for p in points if p["mac_ratio"] == result["mac_ratio"]] == [
        result["distilled"]
    ]
    low, high = result["expected_ci95_pp"]
    assert low < result["expected_loss_pp"] < high
    assert result["search"]["budget_met"]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)), (1, 1))


def _front(graph: Graph, *losses: float) -> tuple[Found, ...]:
    keep = {"site": torch.zeros(1, dtype=torch.bool)}
    return tuple(
        Found(Plan(keep), {}, {}, Verdict(x, x, (x,), 0.0, estimate_pp=x), True, graph, work=i)
        for i, x in enumerate(losses)
    )


@pytest.mark.parametrize(
    ("losses", "left", "most", "tuned", "returned"),
    [
        # Hoped for is 0.75 of a loss x +- 0.2 (1 + x), within 1 as likely as 0.7: x up to 1.047.
        ((9.0, 1.04, 1.0, 0.5), 0.4, 9, [1.04], 1.04),  # at once; what is no hope is not tried
        ((9.0, 6.0, 1.05, 1.04, 0.5), 0.4, 9, [1.04], 1.04),
        ((9.0, 1.04, 1.0, 0.9, 0.5), 0.98, 9, [1.04, 0.9], 0.9),  # what was won is counted on
        ((9.0, 1.04, 1.02, 1.0, 0.5), 1.0, 9, [1.04, 0.5], 0.5),  # nothing is won
        ((9.0, 1.04, 1.02, 1.0, 0.5), 1.0, 3, [1.04], None),  # and without tuning there is better
        ((9.0, 1.04, 1.02, 1.01), 1.0, 9, [1.04], None),  # or nothing will do
        ((9.0, 6.0, 3.0), 0.4, 9, [], None),
    ],
)
def test_the_smallest_network_that_tuning_brings_within_the_budget(
    graph: Graph,
    monkeypatch: pytest.MonkeyPatch,
    losses: tuple[float, ...],
    left: float,
    most: float,
    tuned: list[float],
    returned: float | None,
) -> None:
    asked = []

    def promised(point: Found, school: object, budget: dn.Budget) -> Found:
        asked.append(point.verdict.estimate_pp)
        verdict = replace(point.verdict, estimate_pp=left * point.verdict.estimate_pp)
        return replace(point, verdict=verdict, met=verdict.estimate_pp <= 1)

    monkeypatch.setattr(tuning, "_promised", promised)
    front = _front(graph, *losses)
    found = replace(front[1], front=front)
    chosen = choose(found, None, dn.Budget(1.0), most)
    result = chosen.found
    assert asked == tuned
    assert chosen.trains == result.met == (returned is not None)
    if returned is not None:
        assert result.plan is front[losses.index(returned)].plan
    assert [p.plan for p in result.front] == [p.plan for p in front]
    assert sum(p.plan is result.plan for p in result.front) == 1
    if len(tuned) > 1:
        assert result.stopped_by.startswith("a smaller network, tuned: a loss of")


def test_what_is_within_the_budget_stays_so_where_tuning_gives_no_hope(graph: Graph) -> None:
    """Nothing was won of others, and how much tuning changes varies."""
    (point, much) = _front(graph, 0.97, 10.0)
    tried = [(much.verdict, much.verdict)]
    chosen = choose(replace(point, front=(point,)), None, dn.Budget(1.0), tried=tried)
    assert chosen.found.met
    assert not chosen.trains


@pytest.mark.parametrize(
    ("after_each_fifth", "asked"),
    [((0.4, 0.5, 0.6), 3), ((0.9, 4.0, 0.6), 2), ((4.0, 0.5, 0.6), 1)],
)
def test_no_more_images_are_asked_where_tuning_will_hardly_do(
    graph: Graph, after_each_fifth: tuple[float, ...], asked: int
) -> None:
    given = []

    class School:
        def cross_validate(self, point: Found) -> Iterator[tuple[Verdict, Verdict]]:
            for loss in after_each_fifth:
                given.append(loss)
                # As sure as can be: nothing is drawn to what is usual.
                known = {"estimate_uncertain_pp": 1e-3, "class_estimates_pp": (loss,)}
                alone = Verdict(loss, loss, (loss,), 0.0, estimate_pp=loss, **known)
                change = replace(alone, estimate_pp=loss - 2.0, class_estimates_pp=(loss - 2.0,))
                yield change, alone

    (point,) = _front(graph, 2.0)
    point = replace(point, met=False)
    result = _promised(point, School(), dn.Budget(1.0))
    assert given == list(after_each_fifth[:asked])
    assert result.met == (asked == 3)
    assert result.verdict.estimate_pp == pytest.approx(min(2.0, given[-1]), abs=0.01)


@pytest.mark.parametrize("seen", [False, True])
def test_what_is_known_by_heart_counts_only_as_it_changes(graph: Graph, seen: bool) -> None:
    """Images left out find 4 points lost, and as many before: of known images that says nothing."""

    class School:
        def cross_validate(self, point: Found) -> Iterator[tuple[Verdict, Verdict]]:
            known = {"estimate_uncertain_pp": 0.3, "class_estimates_pp": (0.0,)}
            change = Verdict(0.0, 0.0, (0.0,), 0.0, estimate_pp=-0.2, **known)
            yield change, replace(change, estimate_pp=4.0)

    (point,) = _front(graph, 1.0)
    result = _promised(replace(point, met=False, seen=seen), School(), dn.Budget(1.0))
    # A normal prior N(-0.25, 0.4^2) of the change and a measurement N(-0.2, 0.3^2).
    change = (-0.25 / 0.16 - 0.2 / 0.09) / (1 / 0.16 + 1 / 0.09)
    assert result.met == seen
    assert (result.verdict.estimate_pp < 1) == seen
    if seen:
        assert result.verdict.estimate_pp == pytest.approx(1 + change)
        assert result.verdict.estimate_uncertain_pp == pytest.approx((1 / 0.16 + 1 / 0.09) ** -0.5)


def test_where_nothing_was_removed_nothing_is_tuned(graph: Graph) -> None:
    same = Found(Plan(), {}, {}, Verdict(0.0, 0.0, (0.0,), 0.0), False, graph, stopped_by="it")
    chosen = choose(replace(same, front=(same,)), None, dn.Budget(1.0))
    assert not chosen.found.met
    assert not chosen.trains
    assert chosen.found.stopped_by == "it"


@pytest.mark.parametrize(
    ("left", "met", "spent", "returned"),
    [
        # Of 1.5 points and one more, of which three quarters are left: what is usual.
        (0.75, [True], [1.8], 1.8),
        (0.9, [True], [1.8], 1.8),  # or a little less is won
        # 0.75 of one and 0.5 of 1.5 points are 0.6 of 2.5: the budget may be 1.25 times as large.
        (0.5, [True, True], [1.8, 2.25], 2.25),
        (0.5, [True, False], [1.8, 2.25], 1.8),
        (0.5, [False, True], [1.8, 1.5], 1.5),
        (0.5, [False, False], [1.8, 1.5], 1.5),
    ],
)
def test_a_search_goes_as_far_as_tuning_is_seen_to_help(
    graph: Graph,
    monkeypatch: pytest.MonkeyPatch,
    left: float,
    met: list[bool],
    spent: list[float],
    returned: float,
) -> None:
    (point,) = _front(graph, 1.5)
    after, asked, most, trained = replace(point.verdict, estimate_pp=left * 1.5), [], [], []
    answers = iter(met)

    def search(budget: dn.Budget) -> Found:
        asked.append(budget.max_loss_pp)
        found = replace(point, work=10.0 / budget.max_loss_pp, stopped_by=f"{asked[-1]:.2f}")
        return replace(found, front=(found, replace(point, plan=Plan())))

    def choose(found: Found, school: object, budget: dn.Budget, at_most=math.inf, tried=()):
        most.append(at_most)
        is_met = next(answers)
        return Choice(replace(found, met=is_met), is_met, (*tried, (point.verdict, after)))

    class School:
        seconds = 3.0

        def __init__(self, *others: object) -> None:
            pass

        def tuned(self, point: Found) -> Graph:
            trained.append(point.work)
            return point.graph

        def finish(self) -> None:
            pass

    monkeypatch.setattr(tuning, "choose", choose)
    monkeypatch.setattr(tuning, "School", School)
    found, seconds = search_and_tune(search, None, dn.Budget(1.5))
    assert asked == pytest.approx(spent)
    assert most[0] == math.inf
    assert most[1:] == pytest.approx(
        [0.98 * 10 / 1.8] if spent[-1] > 1.8 else [math.inf] * len(most[1:])
    )
    assert found.work == pytest.approx(10 / returned)
    assert found.stopped_by == f"{spent[-1]:.2f}", "what speaks against still smaller ones"
    assert found.met == any(met)
    assert trained == ([found.work] if any(met) else []), "only what is returned"
    assert [p.tuned is not None for p in found.front] == [any(met), False]
    assert seconds == 3.0


def test_a_search_for_a_ratio_goes_no_further_for_tuning() -> None:
    target = dn.Budget(target_macs=3.0)
    assert provisional(target) is target
    wide = provisional(dn.Budget(max_loss_pp=1.0, max_class_loss_pp=90.0))
    assert wide.max_loss_pp > 1
    assert wide.class_limit_pp == 100.0


def test_only_the_best_method_tunes() -> None:
    with pytest.raises(dn.InputError, match="--tune with the method paper"):
        dn.Options(method="paper", tune=True)
