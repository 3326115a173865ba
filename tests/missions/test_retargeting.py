"""Missions from an atlas: runs like any other, and quotes that agree with them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atlases import SIDE, atlas_of, model, pictures
from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.images import open_images
from distillnet.job.evaluating import evaluate_run
from distillnet.job.options import Options
from distillnet.job.runs import open_run, write_run
from distillnet.missions import retargeting
from distillnet.missions.files import MissionAtlas
from distillnet.missions.quoting import quote
from distillnet.missions.retargeting import retarget
from distillnet.models.programs import load_program
from distillnet.search import Budget

MISSION = Mission((0, 2, 3), ("0", "2", "3"))
OPTIONS = Options(budget=Budget(target_macs=1.5), optimise="macs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("photos") / "photos", 12)


@pytest.fixture(scope="module")
def atlas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MissionAtlas:
    return atlas_of(folder, tmp_path_factory.mktemp("atlas") / "atlas")


def test_a_run_is_made_without_an_image(
    atlas: MissionAtlas, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an image was read")

    with monkeypatch.context() as patch:
        patch.setattr("distillnet.images.batches.read_image", refuse)
        done = retarget(atlas, model(), MISSION, OPTIONS)
        write_run(done, tmp_path / "run")
    assert done.mac_ratio >= 1.5
    run = open_run(tmp_path / "run")
    assert run.result["n_images"]["val"] == 0
    assert "No image was read" in run.result["warnings"][0]
    images = open_images(folder, model().classes, MISSION).train
    told = evaluate_run(run, images)
    # As right as the samples say, to a few images of 36.
    assert abs(told.accuracy - done.distilled.accuracy) < 0.15
    x = torch.zeros(1, 3, 16, 16)
    assert load_program(tmp_path / "run" / "model.pt2").module(x).shape == (1, 3)


def test_images_measure_it(atlas: MissionAtlas, folder: Path) -> None:
    images = open_images(folder, model().classes, MISSION).train
    done = retarget(atlas, model(), MISSION, OPTIONS, images=images)
    assert done.n_images["val"] == done.distilled.n == len(images)
    again = retarget(atlas, model(), MISSION, OPTIONS)
    for name, param in done.compact.params.items():  # they were for the figures only
        assert torch.equal(param, again.compact.params[name])


def _at(side: int, images: Path, directory: Path) -> MissionAtlas:
    network = model()
    how = network.preprocessing.with_input_size((side, side))
    return atlas_of(images, directory, network=replace(network, preprocessing=how))


def test_the_input_size_that_serves_best_is_taken(
    atlas: MissionAtlas, folder: Path, tmp_path: Path
) -> None:
    smaller = _at(12, folder, tmp_path / "smaller")
    images = open_images(folder, model().classes, MISSION).train
    for ratio in (1.2, 6.0):  # which the size alone reaches, and which needs cuts
        options = replace(OPTIONS, budget=Budget(target_macs=ratio))
        kept = retarget(atlas, model(), MISSION, options)
        done = retarget(atlas, model(), MISSION, options, smaller=[smaller], images=images)
        assert done.mac_ratio >= ratio  # of the original at its own size
        assert done.found.graph.input.shape[1:] == (12, 12)
        assert done.found.verdict.estimate_pp < kept.found.verdict.estimate_pp
        assert done.baseline.n == done.distilled.n == len(images)
    write_run(done, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.result["baseline"]["input_size"] == [SIDE, SIDE]
    assert run.result["distilled"]["input_size"] == [12, 12]
    assert evaluate_run(run, images).accuracy == done.distilled.accuracy


def test_a_size_of_which_all_is_known_changes_nothing_by_itself(
    atlas: MissionAtlas, folder: Path, tmp_path: Path
) -> None:
    """The same atlas once more is no other network: a tie stays with the first."""
    kept = retarget(atlas, model(), MISSION, OPTIONS)
    done = retarget(atlas, model(), MISSION, OPTIONS, smaller=[atlas])
    assert done.found.verdict == kept.found.verdict


def test_sizes_are_of_the_same_images(atlas: MissionAtlas, tmp_path: Path) -> None:
    others = _at(12, pictures(tmp_path / "others", 12, seed=1), tmp_path / "smaller")
    with pytest.raises(InputError, match="of other images of 0"):
        retarget(atlas, model(), MISSION, OPTIONS, smaller=[others])


def test_other_networks_and_classes_are_refused(atlas: MissionAtlas) -> None:
    network = model()
    other = replace(network, preprocessing=replace(network.preprocessing, std=(0.4, 0.5, 0.5)))
    with pytest.raises(InputError, match="other preprocessing"):
        retarget(atlas, other, MISSION, OPTIONS)
    with pytest.raises(InputError, match="other weights"):
        retarget(atlas, replace(network, weights_sha256="0" * 64), MISSION, OPTIONS)
    few = replace(atlas, samples={c: n for c, n in atlas.samples.items() if c != 2})
    with pytest.raises(InputError, match="no images of 2"):
        retarget(few, network, MISSION, OPTIONS)


def test_a_quote_is_of_the_network_that_is_made(atlas: MissionAtlas) -> None:
    also = Mission((1,), ("1",))
    told = quote(atlas, model(), MISSION, OPTIONS, also=also)
    done = retarget(atlas, model(), MISSION, OPTIONS)
    assert (told.macs, told.params) == (done.cost_after.macs, done.cost_after.params)
    assert told.mac_ratio == done.mac_ratio
    assert set(told.adds) == set(MISSION.names)
    assert set(told.added) == {"1"}
    assert told.added["1"] >= 0
    assert len(told.alike) == 3
    assert all(0 <= share <= 1 + 1e-6 for *_, share in told.alike)
    with pytest.raises(InputError, match="name it once"):
        quote(atlas, model(), MISSION, OPTIONS, also=Mission((0,), ("0",)))


@pytest.mark.parametrize(
    ("within", "why"),
    [
        ([True, False], "the next smaller network"),
        ([False, True], "the next smaller network"),
        ([True] * 99, "the number of networks that are tried"),
    ],
)
def test_what_stopped_it_is_told(
    atlas: MissionAtlas, within: list[bool], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the first network that was tried is within the budget, or another."""
    said = iter(within)
    monkeypatch.setattr(retargeting, "is_within", lambda budget, verdict: next(said))
    found = retarget(atlas, model(), MISSION, Options(optimise="macs")).found
    assert found.met
    assert found.stopped_by.startswith(why)
