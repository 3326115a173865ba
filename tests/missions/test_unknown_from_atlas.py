"""A rule from an atlas alone: what it was fitted on is what the network sees of the images."""

from pathlib import Path

import pytest
import torch

from atlases import N_CLASSES, atlas_of, model, pictures
from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.graph.channels import analyse
from distillnet.images import load_batches, open_images
from distillnet.job.options import Options
from distillnet.missions.files import MissionAtlas
from distillnet.missions.following import follow_fitted
from distillnet.missions.retargeting import retarget
from distillnet.missions.unknown import area_under_roc, fit_from_atlas, fit_unknown
from distillnet.missions.unknown.features import Measured, measure
from distillnet.missions.unknown.regression import margins
from distillnet.search import Budget

MISSION = Mission((0, 2), ("0", "2"))
OPTIONS = Options(budget=Budget(target_macs=1.5), optimise="macs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("photos") / "photos", 30)


@pytest.fixture(scope="module")
def atlas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MissionAtlas:
    return atlas_of(folder, tmp_path_factory.mktemp("atlas") / "atlas")


def _measured(graph: object, folder: Path) -> Measured:
    network = model()
    images = open_images(folder, network.classes).train
    return measure(graph, load_batches(images, network.preprocessing, batch_size=50))  # type: ignore[arg-type]


def test_samples_of_an_image_stand_together_and_are_its_own(
    atlas: MissionAtlas, folder: Path
) -> None:
    """What the head reads is one for all places of an image, so it tells the image."""
    from distillnet.missions.records import records_of

    done = retarget(atlas, model(), MISSION, OPTIONS)
    record = records_of(done.graph)[-1]
    assert record.layers
    classes = [1, 3]
    image, rows = atlas.images_of_rows(classes), atlas.rows(record, classes)
    assert image.tolist() == sorted(image.tolist())
    assert len(image.unique()) == 60
    for number in image.unique():
        mine = rows[image == number]
        assert torch.equal(mine, mine[:1].expand_as(mine))
    seen = _measured(done.graph, folder)
    whole = seen.features_nf[torch.isin(seen.labels_n, torch.tensor(classes))].float()
    firsts = torch.stack([rows[image == number][0] for number in image.unique()])
    nearest = torch.cdist(firsts, whole).argmin(1)
    assert sorted(nearest.tolist()) == list(range(60))


def test_following_a_fitted_network_tells_what_it_told_when_it_was_fitted(
    atlas: MissionAtlas,
) -> None:
    done = retarget(atlas, model(), MISSION, OPTIONS)
    followed = follow_fitted(
        done.graph, analyse(done.graph), done.plan, done.found.graph,
        lambda record: atlas.rows(record, MISSION.indices),
    )  # fmt: skip
    closed = followed.after_rk[:, list(MISSION.indices)].argmax(1)
    labels = torch.arange(2).repeat_interleave(torch.tensor(atlas.counts(MISSION.indices)))
    assert float((closed == labels).float().mean()) == pytest.approx(
        done.distilled.accuracy, abs=0.005
    )


def test_the_rule_refuses_images_of_the_other_classes(
    atlas: MissionAtlas, folder: Path, tmp_path: Path
) -> None:
    done = retarget(atlas, model(), MISSION, OPTIONS)
    rule, told = fit_from_atlas(atlas, done)
    assert (told.n_known, told.n_unknown) == (60, 60)
    fresh = _measured(done.compact, pictures(tmp_path / "fresh", 20, seed=9))
    known = torch.isin(fresh.labels_n, torch.tensor(MISSION.indices))
    # The images that the atlas was made of, seen by the network itself.
    seen = _measured(done.compact, folder)
    mine = torch.isin(seen.labels_n, torch.tensor(MISSION.indices))
    by_images, _ = fit_unknown(_part(seen, mine), _part(seen, ~mine))
    areas = []
    for one in (rule, by_images):
        score = margins(fresh, one)
        areas.append(area_under_roc(score[known], score[~known]))
    alone = fresh.scores_nk.logsumexp(1)
    assert areas[0] > area_under_roc(alone[known], alone[~known]) + 0.2
    assert areas[0] > areas[1] - 0.05


def _part(measured: Measured, of: torch.Tensor) -> Measured:
    labels = measured.labels_n[of]
    position = torch.searchsorted(labels.unique(), labels)
    return Measured(measured.features_nf[of], measured.scores_nk[of], position)


def test_an_atlas_of_the_mission_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    alone = atlas_of(folder, tmp_path / "alone", classes=MISSION.indices)
    done = retarget(alone, model(), MISSION, OPTIONS)
    with pytest.raises(InputError, match="the mission's classes alone"):
        fit_from_atlas(alone, done)
    assert N_CLASSES == 4


def test_a_network_that_is_to_tell_strangers_keeps_what_they_feel(atlas: MissionAtlas) -> None:
    """It says more of them what the original says, whose samples it was fitted to, too."""
    strangers, made = [1, 3], {}
    for name, told in (("blind", ()), ("wary", strangers)):
        done = retarget(atlas, model(), MISSION, OPTIONS, strangers=told)
        assert done.found.verdict.n_images == sum(atlas.counts(MISSION.indices))
        followed = follow_fitted(
            done.graph, analyse(done.graph), done.plan, done.found.graph,
            lambda record: atlas.rows(record, strangers),
        )  # fmt: skip
        both = followed.before_rk.log_softmax(1), followed.after_rk.log_softmax(1)
        made[name] = float((both[0] - both[1]).square().mean())
    assert made["wary"] < made["blind"]
