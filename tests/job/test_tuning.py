"""--tune: how far the search goes, which network is returned, and that its run is what it says."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

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
from distillnet.job.promises import promised
from distillnet.job.runs import write_run
from distillnet.job.tuning import needed, search_and_tune, spending
from distillnet.models import Model
from distillnet.refit.tune import TuneSettings
from distillnet.search import Found, Verdict, is_within

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
    # So small a network learns by larger steps, and is cut so far that they certainly help.
    large = partial(TuneSettings, step=0.004, temperature=1.0, share=0.5)
    monkeypatch.setattr(tuning, "TuneSettings", large)
    mission = dn.parse_mission("0,1,3", model.classes)
    images = dn.split_images(dn.open_images(photos, model.classes, mission.indices))
    stages = []
    for name in ("atlas", "run"):
        (tmp_path / name).mkdir()
    options = dn.Options(budget=dn.Budget(target_macs=16.0), tune=True, optimise="macs", seen=True)
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
    assert result["mac_ratio"] >= 16
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


def _point(graph: Graph, loss_pp: float, uncertain_pp: float = 0.0) -> Found:
    """A network that leaves the less to do the more it loses."""
    keep = {"site": torch.zeros(1, dtype=torch.bool)}
    verdict = Verdict(0.0, 0.0, (0.0,), 0.0, estimate_uncertain_pp=uncertain_pp)
    verdict = _losing(verdict, loss_pp)
    return Found(Plan(keep), {}, {}, verdict, True, graph, work=1 / loss_pp)


def _losing(verdict: Verdict, loss_pp: float) -> Verdict:
    return replace(verdict, estimate_pp=loss_pp, class_estimates_pp=(loss_pp,))


class _School:
    """Keeps what is trained."""

    seconds = 3.0
    trained: ClassVar[list[float]] = []

    def __init__(self, *others: object) -> None:
        self.trained.clear()

    def tuned(self, point: Found) -> Graph:
        self.trained.append(point.work)
        return point.graph

    def finish(self) -> None:
        pass


@dataclass(frozen=True)
class _World:
    """Networks of any loss, and what tuning leaves of one."""

    networks: tuple[Found, ...]
    left: Callable[[float], float]
    asked: list[float] = field(default_factory=list)

    def search(self, budget: dn.Budget) -> Found:
        """The network of least work within a budget, where there is one."""
        within = [point for point in self.networks if is_within(budget, point.verdict)]
        nothing = Verdict(0.0, 0.0, (0.0,), 0.0)  # is lost by the original
        original = replace(self.networks[0], plan=Plan(), verdict=nothing, met=False, work=math.inf)
        found = replace(within[-1] if within else original, stopped_by=f"expected: {budget}")
        found = replace(found, verdict=replace(found.verdict))  # believed anew, if the same
        return replace(found, front=(*reversed(within[:-1]), found))

    def promised(self, point: Found, school: object, budget: dn.Budget) -> tuple[Found, Verdict]:
        self.asked.append(point.verdict.estimate_pp)
        verdict = _losing(point.verdict, self.left(point.verdict.estimate_pp))
        better = verdict.estimate_pp < point.verdict.estimate_pp
        met = is_within(budget, verdict)
        return (replace(point, verdict=verdict, met=met) if better else point), verdict

    def best(self, budget: dn.Budget) -> float:
        """The most that a network may lose before it is tuned, or without that."""
        losses = [point.verdict.estimate_pp for point in self.networks]
        verdict = self.networks[0].verdict
        return max(x for x in losses if is_within(budget, _losing(verdict, min(x, self.left(x)))))


@pytest.mark.parametrize("step_pp", [0.01, 0.3])
@pytest.mark.parametrize("uncertain_pp", [0.6, 0.9])
@pytest.mark.parametrize(
    "left",
    [
        lambda x: 0.75 * x,  # what is usual
        lambda x: 0.5 * x,
        lambda x: 0.9 * x,
        lambda x: x,
        lambda x: x - 0.1,
        lambda x: 0.2 * x if x < 1.35 else 2 * x,  # a cliff
        lambda x: 3 * x,
    ],
    ids=["usual", "more", "less", "nothing", "a tenth", "cliff", "worse"],
)
def test_the_search_comes_close_to_what_tuning_brings_within_the_budget(
    graph: Graph,
    monkeypatch: pytest.MonkeyPatch,
    left: Callable[[float], float],
    uncertain_pp: float,
    step_pp: float,
) -> None:
    losses = [step_pp * i for i in range(1, round(4 / step_pp))]
    world = _World(tuple(_point(graph, loss, uncertain_pp) for loss in losses), left)
    monkeypatch.setattr(tuning, "promised", world.promised)
    monkeypatch.setattr(tuning, "School", _School)
    budget = dn.Budget(1.0, max_class_loss_pp=90)
    found, seconds = search_and_tune(world.search, None, budget)
    untuned, best, lost = 1 / world.search(budget).work, world.best(budget), 1 / found.work
    assert max(untuned, 0.75 * best) <= lost <= best + 1e-9
    assert found.met
    assert is_within(budget, found.verdict)
    assert len(world.asked) <= 4
    assert len(set(world.asked)) == len(world.asked), "none twice"
    better = left(lost) < lost
    assert pytest.approx([found.work] if better else []) == _School.trained, "only what is returned"
    assert [p.tuned is not None for p in found.front].count(True) == better
    assert sum(p.plan is found.plan for p in found.front) == 1
    assert all(p.met == is_within(budget, p.verdict) for p in found.front)
    assert seconds == 3.0
    if max(world.asked) > lost + 1e-9:
        assert found.stopped_by.startswith("a smaller network, tuned: a loss of")
    else:
        assert found.stopped_by.endswith("points instead of 1)")


def test_nothing_is_tuned_without_hope(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of 1.05 points +- 0.2 x 2.05 are within 1 less likely than 0.7."""
    networks = tuple(_point(graph, x) for x in (0.5, 1.05, 1.15))
    world = _World(networks, lambda x: 0.75 * x)
    monkeypatch.setattr(tuning, "promised", world.promised)
    monkeypatch.setattr(tuning, "School", _School)
    found, _ = search_and_tune(world.search, None, dn.Budget(1.0))
    assert world.asked == [0.5]
    assert found.work == 1 / 0.5


def test_a_network_that_comes_back_is_what_it_was_found_to_be(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halfway to 0.86, which failed, there is only 0.05 again, which tuning makes no better."""
    world = _World(tuple(_point(graph, x, 0.6) for x in (0.05, 0.86)), lambda x: x)
    spent = []

    def search(budget: dn.Budget) -> Found:
        spent.append(budget.max_loss_pp)
        return world.search(budget)

    monkeypatch.setattr(tuning, "promised", world.promised)
    monkeypatch.setattr(tuning, "School", _School)
    found, _ = search_and_tune(search, None, dn.Budget(1.0))
    assert world.asked == [0.86, 0.05]
    assert len(spent) == 3
    assert spent[:2] == [1.2, 1.0]
    assert found.work == 1 / 0.05
    assert (found.tuned, _School.trained) == (None, [])


@pytest.mark.parametrize("budget", [dn.Budget(0.0), dn.Budget(0.1), dn.Budget(100.0)])
def test_where_nothing_is_found_nothing_is_tuned(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, budget: dn.Budget
) -> None:
    world = _World((_point(graph, 200.0),), lambda x: x / 1000)
    monkeypatch.setattr(tuning, "promised", world.promised)
    monkeypatch.setattr(tuning, "School", _School)
    found, _ = search_and_tune(world.search, None, budget)
    assert (world.asked, _School.trained) == ([], [])
    assert not found.met
    assert not found.plan.keep
    assert found.stopped_by.startswith("expected")


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

    point = replace(_point(graph, 2.0), met=False)
    result, _ = promised(point, School(), dn.Budget(1.0))
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

    point = replace(_point(graph, 1.0), met=False, seen=seen)
    result, expected = promised(point, School(), dn.Budget(1.0))
    assert (result.verdict is expected) == seen
    # A normal prior N(-0.25, 0.4^2) of the change and a measurement N(-0.2, 0.3^2).
    change = (-0.25 / 0.16 - 0.2 / 0.09) / (1 / 0.16 + 1 / 0.09)
    assert result.met == seen
    assert (result.verdict.estimate_pp < 1) == seen
    if seen:
        assert result.verdict.estimate_pp == pytest.approx(1 + change)
        assert result.verdict.estimate_uncertain_pp == pytest.approx((1 / 0.16 + 1 / 0.09) ** -0.5)


def test_a_search_for_a_ratio_is_asked_once(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it loses, its network is tuned where that makes it better."""
    target, asked = dn.Budget(target_macs=3.0), []
    world = _World((_point(graph, 5.0),), lambda x: 0.9 * x)
    monkeypatch.setattr(tuning, "promised", world.promised)
    monkeypatch.setattr(tuning, "School", _School)

    def search(budget: dn.Budget) -> Found:
        asked.append(budget)
        return replace(world.networks[0], met=True, stopped_by="the ratio")

    found, _ = search_and_tune(search, None, target)
    assert asked == [target]
    assert found.met
    assert found.verdict.estimate_pp == pytest.approx(4.5)
    assert found.tuned is not None
    assert found.stopped_by == "the ratio"


def test_a_multiple_of_a_budget() -> None:
    wide = spending(dn.Budget(max_loss_pp=1.0, max_class_loss_pp=90.0), 1.2)
    assert wide.max_loss_pp > 1
    assert wide.class_limit_pp == 100.0
    for loss, worst, times in ((0.5, 0.5, 0.5), (0.5, 6.0, 2.0), (3.0, 3.0, 3.0)):
        verdict = Verdict(0.0, 0.0, (0.0,), 0.0, estimate_pp=loss, class_estimates_pp=(worst,))
        assert needed(dn.Budget(1.0), verdict) == pytest.approx(times, abs=1e-6)
    assert needed(dn.Budget(0.0), verdict) == math.inf


def test_only_the_best_method_tunes() -> None:
    with pytest.raises(dn.InputError, match="--tune with the method paper"):
        dn.Options(method="paper", tune=True)
