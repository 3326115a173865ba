"""A table from beginning to end, of a network that takes no time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colours import MISSION, colours
from distillnet.errors import InputError
from distillnet.job.calls import distill
from distillnet.job.options import Options
from distillnet.job.partition import Images
from distillnet.models import Model
from distillnet.models.load import random_model
from distillnet.models.train import save_weights
from distillnet.reproduce import Asked, Line, network_at_hand, reproduce_table, running
from distillnet.search import Budget

ASKED = Asked("table1", "paper", networks=("squeezenet",), classes=MISSION.names, per_class=5)


@pytest.fixture
def measured(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were measured, one for each job; all of them are the small one."""
    names: list[str] = []

    def count(*args: Any) -> Any:
        names.append(args[0].network)
        return measure(*args)

    measure = running.measure
    monkeypatch.setattr(running, "measure", count)
    monkeypatch.setattr(running, "network_at_hand", lambda *args, **options: model)
    return names


def _table(asked: Asked, tmp_path: Path) -> tuple[Line, list[bool]]:
    known: list[bool] = []
    images = tmp_path / "images"
    if not images.exists():
        images.mkdir()
        colours(images)
    (line,) = reproduce_table(
        asked, tmp_path, tmp_path / "out", images=images,
        on_line=lambda line, kept: known.append(kept),
    )  # fmt: skip
    return line, known


def test_a_row_says_of_how_many_images_it_is(tmp_path: Path, measured: list[str]) -> None:
    """Of 20 images of each class four are held out, however few are looked at."""
    line, _ = _table(ASKED, tmp_path)
    assert line.n_images == {"statistics": 9, "search": 6, "val": 12}
    (row,) = json.loads((tmp_path / "out" / "paper.json").read_text())["rows"]
    assert row["n_images"] == line.n_images
    everything, _ = _table(replace(ASKED, per_class=None), tmp_path)
    assert everything.n_images == {"statistics": 24, "search": 24, "val": 12}


def test_where_nothing_could_be_measured_no_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for mine in (False, True):  # a folder of the user's own stays
        if mine:
            (tmp_path / "out").mkdir()
        with pytest.raises(InputError, match="holds no images"):
            reproduce_table(Asked("table3", "best"), tmp_path / "empty", tmp_path / "out")
        assert (tmp_path / "out").exists() == mine


def test_a_row_is_measured_once(tmp_path: Path, measured: list[str]) -> None:
    first = _table(ASKED, tmp_path)
    assert first[1] == [False]
    # What only the other method listens to makes no other row of it.
    for asked in (ASKED, replace(ASKED, param_weight=3.0)):
        assert _table(asked, tmp_path) == (first[0], [True])
    assert measured == ["squeezenet"]
    for asked in (replace(ASKED, seed=1), replace(ASKED, max_loss_pp=2.0)):
        assert _table(asked, tmp_path)[1] == [False]


def test_progress_of_rows_begins_with_the_first(tmp_path: Path, measured: list[str]) -> None:
    """So that the time of each is that of all, and not of all but one."""
    (tmp_path / "images").mkdir()
    colours(tmp_path / "images")
    told: list[tuple[str, int, int]] = []
    reproduce_table(
        ASKED, tmp_path, tmp_path / "out", images=tmp_path / "images",
        on_progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert (told[0], told[-1]) == (("rows", 0, 1), ("rows", 1, 1))


@pytest.mark.parametrize("folder", ["data/weights", "out"])
def test_what_was_trained_once_is_not_trained_again(folder: str, tmp_path: Path) -> None:
    """There are no images to train on."""
    (tmp_path / folder).mkdir(parents=True)
    weights = random_model("zoo:tf_cifar").module.state_dict()
    save_weights(tmp_path / folder / "tf_cifar.safetensors", weights)
    found = network_at_hand("cifar", tmp_path / "data", tmp_path / "out").module.state_dict()
    assert all(found[name].equal(tensor) for name, tensor in weights.items())


def test_the_chosen_network_alone_is_the_same(model: Model, images: Images) -> None:
    """A row is of one network; the others of its front need not be judged."""
    options = Options(Budget(0.0), optimise="macs")  # for more, the smallest loses least here
    whole, alone = (
        distill(model, MISSION, images, options=options, whole_front=front)
        for front in (True, False)
    )
    assert len(whole.front) > 1
    assert alone.front == ()
    assert (alone.cost_after, alone.distilled) == (whole.cost_after, whole.distilled)
