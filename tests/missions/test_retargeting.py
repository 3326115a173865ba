"""Missions from an atlas: runs like any other, and quotes that agree with them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atlases import atlas_of, model, pictures
from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.errors import InputError
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import open_images
from distillnet.job.options import Options
from distillnet.job.runs import evaluate_run, open_run, write_run
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


def test_a_smaller_input_is_a_part_of_the_ratio(
    atlas: MissionAtlas, folder: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, budget=Budget(target_macs=3.0))
    images = open_images(folder, model().classes, MISSION).train
    done = retarget(atlas, model(), MISSION, options, size=(12, 12), images=images)
    assert done.mac_ratio >= 3.0
    write_run(done, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.result["distilled"]["input_size"] == [12, 12]
    assert run.preprocessing.input_size == (12, 12)
    told = evaluate_run(run, images)  # the compact network, at its size
    assert told.accuracy == pytest.approx(done.distilled.accuracy, abs=1e-9)
    # It is cut less than at the whole size, by what the smaller maps save: 144 of 256 places.
    whole = retarget(atlas, model(), MISSION, options)
    assert done.cost_after.params > whole.cost_after.params
    # Its weights are those of the ratio that is left, fitted at the whole size.
    small = capture_model(model(), (12, 12))
    area = done.cost_before.macs / cost(small, analyse(small)).macs
    rest = replace(OPTIONS, budget=Budget(target_macs=3.0 / area))
    same = retarget(atlas, model(), MISSION, rest)
    assert same.compact.params.keys() == done.compact.params.keys()
    for name, param in same.compact.params.items():
        assert torch.equal(param, done.compact.params[name])


@pytest.mark.parametrize("size", [(17, 17), (1, 1)])
def test_a_size_that_the_network_does_not_take_is_refused(
    atlas: MissionAtlas, size: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match="takes no images of"):
        retarget(atlas, model(), MISSION, OPTIONS, size=size)


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
