"""The studio on an atlas of a real network: from ticks to files on disk, and nobody else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import run_command
from distillnet.errors import InputError
from distillnet.job.evaluating import evaluate_run
from distillnet.job.options import Options
from distillnet.job.runs import open_run
from distillnet.missions.files import MissionAtlas, open_mission_atlas
from distillnet.missions.network import model_of
from distillnet.missions.retargeting import retarget
from distillnet.pages.studio import Draftroom
from distillnet.pages.studio.draftroom import Wish
from distillnet.pages.studio.jobs import Jobs
from looking import PHONE, looked_at, serious, write_and_export
from studios import REFUSED, Studio, open_studio, refusals

pytestmark = pytest.mark.slow

_CLASSES = {"n01440764": "tench", "n03000684": "chain saw", "n03028079": "church"}
_WISH = Wish((0, 497), target_macs=3.0)
_N_VAL = 3  # images of each class


@pytest.fixture(scope="module")
def home(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SqueezeNet's weights, a few images of three classes, and an atlas of them."""
    home = tmp_path_factory.mktemp("atlas-studio")
    for part, n in (("train", 4), ("val", _N_VAL)):
        for folder in _CLASSES:
            (home / "data" / part / folder).mkdir(parents=True)
            for image in sorted((data_dir / "imagenette" / part / folder).iterdir())[:n]:
                (home / "data" / part / folder / image.name).symlink_to(image.resolve())
    weights = home / "weights.safetensors"
    weights.symlink_to((data_dir / "weights" / "squeezenet1_0.safetensors").resolve())
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "collect", "torchvision:squeezenet1_0", "--weights", str(weights), "--data",
            str(home / "data"), "--classes", "all", "--out", str(home / "atlas"),
        )  # fmt: skip
    return home


@pytest.fixture(scope="module")
def atlas(home: Path) -> MissionAtlas:
    return open_mission_atlas(home / "atlas")


@pytest.fixture(scope="module")
def studio(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    words = (home / "atlas", "--weights", home / "weights.safetensors")
    with open_studio(*words, out=tmp_path_factory.mktemp("out")) as opened:
        yield opened


def _room(home: Path, atlas: MissionAtlas, out: Path, data: Path | None = None) -> Draftroom:
    weights = home / "weights.safetensors"
    model = model_of(atlas, weights=weights)
    return Draftroom(atlas, model, out, Options(keep_input_size=True), data=data, weights=weights)


def _silent(stage: str, done: int, of: int) -> None:
    pass


def test_from_ticks_to_files_on_disk(studio: Studio, home: Path, browser: Any) -> None:
    with looked_at(browser, studio.address) as seen:
        page = seen.page
        page.set_default_timeout(120_000)
        page.get_by_label("tench").check()
        assert page.locator("#numbers li").count() == 0  # one class is no mission
        page.get_by_label("church").check()
        page.locator(
            "#chosen", has_text=re.compile("church, tench: a loss of .* was found")
        ).wait_for()
        page.get_by_role("button", name="Keep this mission").click()

        page.get_by_label("chain saw").check()
        page.get_by_role("slider", name="Times fewer").fill("4")
        page.locator("#chosen", has_text=re.compile("chain saw.* was found on 9 images")).wait_for()
        heads = page.locator("#comparison thead th").all_inner_texts()
        assert heads == ["", "Original", "Kept mission", "This mission"]
        row = page.locator("#comparison tr", has_text="Multiply-adds")
        cells = row.locator("td").all_inner_texts()
        assert [re.findall(r"\((\d)\.", cell) for cell in cells] == [[], ["3"], ["4"]]

        image = next((home / "data" / "val" / "n03028079").iterdir())
        page.get_by_label("Drop an image here").set_input_files(image)
        page.get_by_role("heading", name="The kept mission says").wait_for()
        for title in ("This mission says", "The original says, among these classes"):
            assert page.get_by_role("heading", name=title).count() == 1
        page.get_by_text("kept and removed by: This mission").click()
        assert page.get_by_role("rowheader", name="features.0").first.is_visible()

        write_and_export(page, "three")
        assert serious(page) == []
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert seen.said == []
        assert all(url.startswith(studio.address.partition("?")[0]) for url in seen.asked)
    run = open_run(studio.folder / "three")
    assert set(run.mission.names) == set(_CLASSES.values())
    assert run.result["mac_ratio"] >= 4
    assert (studio.folder / "three" / "export.pt2").stat().st_size > 10_000
    assert run.result["n_images"]["val"] == 3 * _N_VAL
    assert evaluate_run(run, home / "data").accuracy == run.result["distilled"]["accuracy"]


@pytest.mark.parametrize(("path", "headers", "why"), REFUSED)
def test_others_are_refused(studio: Studio, path: str, headers: dict[str, str], why: str) -> None:
    got, posted = refusals(studio, path, headers)
    assert (got[0], posted[0]) == (403, 403)
    assert why in got[1]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"classes": [0], "target_macs": 3}, "choose two or more"),
        ({"classes": [0, 0], "target_macs": 3}, "each once"),
        ({"classes": [0, 7], "target_macs": 3}, "the atlas has no images of"),
        ({"classes": [0, "<b>"], "target_macs": 3}, "a list of their numbers"),
        ({"classes": [0, True], "target_macs": 3}, "a list of their numbers"),
        ({"classes": [0, 497], "target_macs": "3"}, "expected a number"),
        ({"classes": [0, 497]}, "expected a number"),
    ],
)
def test_what_cannot_be_a_mission_is_refused(
    studio: Studio, asked: dict[str, Any], why: str
) -> None:
    own = {"x-distillnet-token": studio.token}
    status, text = studio.ask("/api/count", own, "POST", json.dumps(asked))
    assert status == 400
    assert why in json.loads(text)["error"]


def test_what_is_shown_is_what_is_written(home: Path, atlas: MissionAtlas, tmp_path: Path) -> None:
    """Costs that are counted before, the network's own, and the run's are the same."""
    room = _room(home, atlas, tmp_path / "out", home / "data")
    first = room.count(_WISH)
    assert first["expected"] is None
    told = room.expect(_WISH, _silent)
    assert told["costs"] == first["costs"]
    assert room.count(_WISH) == told
    room.make(_WISH, "run", _silent)
    result = open_run(tmp_path / "out" / "run").result
    for name in ("macs", "params"):
        assert result["distilled"][name] == told["costs"][name]
    assert result["mac_ratio"] == told["costs"]["mac_ratio"]
    assert result["expected_loss_pp"] == told["expected"]["loss_pp"]
    assert result["distilled"]["accuracy"] == told["measured"]["accuracy"]
    assert result["loss_ci95_pp"] == [told["measured"]["low_pp"], told["measured"]["high_pp"]]
    alone = retarget(
        atlas, room.model, room.mission(_WISH), Options(keep_input_size=True, budget=_WISH.budget)
    )
    assert alone.cost_after.macs == result["distilled"]["macs"]


def test_images_that_the_atlas_was_made_of_are_not_measured_on(
    home: Path, atlas: MissionAtlas, tmp_path: Path
) -> None:
    room = _room(home, atlas, tmp_path / "out", home / "data" / "train")
    assert room.expect(_WISH, _silent)["measured"] is None


def test_work_that_is_cancelled_leaves_nothing_and_makes_way(
    home: Path, atlas: MissionAtlas, tmp_path: Path
) -> None:
    room, jobs = _room(home, atlas, tmp_path / "out"), Jobs()

    def work(on_progress: Any) -> Any:
        def then_cancelled(stage: str, done: int, of: int) -> None:
            if stage == "fit" and done == 3:
                jobs.cancel()
            on_progress(stage, done, of)

        return room.make(_WISH, "tried", then_cancelled)

    jobs.start("Writing", work)
    jobs.wait(120)
    assert jobs.latest.state == "cancelled"
    assert room.shelf.written() == []
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="not made yet"):
        room.network(_WISH)

    jobs.start("Waiting", lambda told: [told("wait", 0, 0) for _ in iter(int, 1)])
    jobs.replace("Nothing", lambda told: 1)
    jobs.wait(60)
    assert (jobs.latest.state, jobs.latest.result) == ("done", 1)
