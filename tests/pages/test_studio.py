"""The studio: this machine's own browser, end to end, and nobody else."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from commands import run_command
from conftest import NAMES
from distillnet.deploy.networks import distilled_network
from distillnet.errors import InputError
from distillnet.images import ImageRef, read_image
from distillnet.images.preprocessing import preprocess
from distillnet.job.evaluating import evaluate_run
from distillnet.job.runs import open_run, seal_run
from distillnet.pages.studio.answering import page_text
from distillnet.pages.studio.app import page_values
from distillnet.pages.studio.asking import ask
from distillnet.pages.studio.jobs import Jobs
from distillnet.pages.studio.workroom import Workroom
from distillnet.pages.subject import gather
from looking import looked_at, serious, write_and_export
from studios import REFUSED, Studio, open_studio, refusals


@pytest.fixture(scope="module")
def studio(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    words = (home / "run", "--model", f"{home / 'net.py'}:Net")
    with open_studio(*words, out=tmp_path_factory.mktemp("studio")) as opened:
        yield opened


def test_from_a_budget_to_files_on_disk(studio: Studio, home: Path, browser: Any) -> None:
    with looked_at(browser, studio.address) as seen:
        page = seen.page
        page.set_default_timeout(60_000)
        slider = page.get_by_label("Points of accuracy")
        slider.fill("5")
        page.locator("#numbers li").first.wait_for()
        assert "times" not in page.locator("#chosen").inner_text()
        assert page.locator("#candidates tr").count() >= 1

        image = next((home / "data" / "val" / "1").iterdir())
        page.get_by_label("Drop an image here").set_input_files(image)
        page.get_by_text("The original says, among these classes").wait_for()
        assert page.locator("#answer li").first.inner_text().rpartition(":")[0] in NAMES
        page.get_by_text("Which neurons fired").click()
        assert page.get_by_role("rowheader", name="a:relu").is_visible()

        write_and_export(page, "tried")
        assert serious(page) == []
        assert seen.said == []
        assert {urlsplit(url).netloc for url in seen.asked} <= {urlsplit(studio.address).netloc}
    made = open_run(studio.folder / "tried")
    assert (studio.folder / "tried" / "export.pt2").stat().st_size > 10_000
    assert evaluate_run(made, home / "data").accuracy == made.result["distilled"]["accuracy"]


def test_a_budget_may_be_moved_before_the_networks_are_there(studio: Studio, browser: Any) -> None:
    held: list[Any] = []
    with looked_at(browser, studio.address) as seen:
        seen.page.set_default_timeout(60_000)
        seen.page.route("**/api/state*", lambda route: held.append(route))
        with seen.page.expect_request("**/api/state*"):
            seen.page.reload()
        seen.page.get_by_label("Points of accuracy").fill("5")
        held[0].continue_()
        seen.page.locator("#numbers li").first.wait_for()
        assert seen.said == []


def test_with_the_token_from_the_own_page_it_answers(studio: Studio) -> None:
    split = urlsplit(studio.address)
    own = {"x-distillnet-token": studio.token, "origin": f"http://{split.netloc}"}
    status, text = studio.ask("/api/state", own)
    assert (status, "candidates" in text) == (200, True)
    assert studio.ask(f"/?token={studio.token}")[0] == 200


@pytest.mark.parametrize(("path", "headers", "why"), REFUSED)
def test_others_are_refused(studio: Studio, path: str, headers: dict[str, str], why: str) -> None:
    got, posted = refusals(studio, path, headers)
    assert (got[0], posted[0]) == (403, 403)
    assert why in got[1]


def test_it_listens_on_the_loopback_address_only(studio: Studio) -> None:
    port = urlsplit(studio.address).port
    if not Path("/proc/net/tcp").exists():
        pytest.skip("no /proc/net/tcp here")
    lines = Path("/proc/net/tcp").read_text().splitlines() + (
        Path("/proc/net/tcp6").read_text().splitlines() if Path("/proc/net/tcp6").exists() else []
    )
    listening = [line.split()[1] for line in lines if line.split()[3:4] == ["0A"]]
    mine = [at.partition(":")[0] for at in listening if at.endswith(f":{port:04X}")]
    assert mine == ["0100007F"]


@pytest.mark.parametrize("name", ["../escaped", "a/b", "", ".hidden", "x" * 65, "name\n"])
def test_a_name_that_leads_elsewhere_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    room = Workroom(gather(open_run(home / "run"), images=False), tmp_path / "out")
    with pytest.raises(InputError, match="expected letters"):
        room.make(5.0, name, lambda stage, done, of: None)
    assert list(tmp_path.iterdir()) == []


def test_work_that_is_cancelled_leaves_nothing(home: Path, tmp_path: Path) -> None:
    room, jobs = Workroom(gather(open_run(home / "run"), images=False), tmp_path / "out"), Jobs()

    def work(on_progress: Any) -> Any:
        def then_cancelled(stage: str, done: int, of: int) -> None:
            if done == of == 1:  # all is made, and not yet in its place
                jobs.cancel()
            on_progress(stage, done, of)

        return room.make(5.0, "tried", then_cancelled)

    jobs.start("Writing", work)
    jobs.wait(60)
    assert jobs.latest.state == "cancelled"
    assert room.shelf.written() == []
    assert [name for _, _, files in os.walk(tmp_path) for name in files] == []


def test_what_goes_wrong_is_told_and_the_next_work_begins(home: Path, tmp_path: Path) -> None:
    room, jobs = Workroom(gather(open_run(home / "run"), images=False), tmp_path / "out"), Jobs()
    jobs.start("Exporting", lambda told: room.shelf.export("absent", "pt2", told))
    jobs.wait(60)
    assert jobs.latest.state == "failed"
    assert "absent" in jobs.latest.message
    jobs.start("Nothing", lambda told: 1)
    jobs.wait(60)
    assert (jobs.latest.state, jobs.latest.result) == ("done", 1)


@pytest.fixture(scope="module")
def ruled(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a rule for unknown images."""
    run = Path(shutil.copytree(home / "run", tmp_path_factory.mktemp("ruled") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "unknown", str(run), "--data", str(home / "data"), "--unknown",
            str(home / "others"), "--max-false-reject", "20",
        )  # fmt: skip
    return run


def test_an_image_is_refused_as_the_rule_s_own_network_does(home: Path, ruled: Path) -> None:
    opened = open_run(ruled)
    room = Workroom(gather(opened, images=False), home / "out")
    own = next(
        i
        for i, one in enumerate(room.candidates)
        if one.result["distilled"] == opened.result["distilled"]
    )
    network = distilled_network(opened, unknown=True)
    files = [*(home / "others").rglob("*.png"), *(home / "data" / "val").rglob("*.png")]
    found = set()
    for path in files:
        said = ask(path.read_bytes(), None, room.network(own))["refused"]
        with torch.inference_mode():
            x = preprocess(read_image(ImageRef(path, 0)), network.preprocessing)[None]
            scores = network.module(x)[0]
        assert said["is"] == bool(scores.argmax() == 3)
        found.add(said["is"])
    assert found == {True, False}
    others = [i for i in range(len(room.candidates)) if i != own]
    for other in others:  # the rule was fitted to another network
        assert ask(files[0].read_bytes(), None, room.network(other))["refused"] is None


def test_a_run_without_a_front_shows_its_one_network(run_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(run_folder / "front")
    seal_run(run_folder)
    room = Workroom(gather(open_run(run_folder), images=False), tmp_path / "out")
    assert (len(room.candidates), room.choose(0.0), room.has_front) == (1, 0, False)
    assert room.why_no_rule == "none"
    page = page_text("studio.html", "studio.js", page_values(room))
    assert "keeps no networks for other budgets" in page
    assert 'id="max-loss"' not in page
    assert "distillnet unknown run --unknown DIR" in page
