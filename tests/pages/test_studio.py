"""The studio: this machine's own browser, end to end, and nobody else."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import NAMES
from distillnet.errors import InputError
from distillnet.job.runs import evaluate_run, open_run
from distillnet.pages.studio.jobs import Jobs
from distillnet.pages.studio.workroom import Workroom
from distillnet.pages.subject import gather
from looking import looked_at, serious


@dataclass(frozen=True)
class Studio:
    address: str
    folder: Path

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.address).query)["token"][0]

    def ask(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, str]:
        """Status and text of an answer; the host is as the address has it unless headers say."""
        split = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(split.hostname), split.port, timeout=60)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def studio(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio in a process of its own, ended by Ctrl-C."""
    folder = tmp_path_factory.mktemp("studio")
    words = ("studio", home / "run", "--model", f"{home / 'net.py'}:Net", "--out", folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "distillnet", *map(str, words)],
        stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
    assert found
    yield Studio(found[0], folder)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stdout.close()


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

        page.get_by_label("Name of the run").fill("tried")
        page.get_by_role("button", name="Write the run").click()
        page.get_by_text("Done: tried holds").wait_for()
        page.get_by_label("as", exact=True).select_option("pt2")
        page.get_by_role("button", name="Export").click()
        page.get_by_text(re.compile("export.pt2")).wait_for()
        assert serious(page) == []
        assert seen.said == []
        assert {urlsplit(url).netloc for url in seen.asked} <= {urlsplit(studio.address).netloc}
    made = open_run(studio.folder / "tried")
    assert (studio.folder / "tried" / "export.pt2").stat().st_size > 10_000
    assert evaluate_run(made, home / "data").accuracy == made.result["distilled"]["accuracy"]


def test_with_the_token_from_the_own_page_it_answers(studio: Studio) -> None:
    split = urlsplit(studio.address)
    own = {"x-distillnet-token": studio.token, "origin": f"http://{split.netloc}"}
    status, text = studio.ask("/api/state", own)
    assert (status, "candidates" in text) == (200, True)
    assert studio.ask(f"/?token={studio.token}")[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "why"),
    [
        ("/", {}, "token"),
        ("/?token=wrong", {}, "token"),
        ("/api/state", {}, "token"),
        ("/api/state?token={token}", {}, "token"),  # which only the page's address may have
        ("/api/state", {"x-distillnet-token": "wrong"}, "token"),
        ("/?token={token}", {"host": "studio.example"}, "host"),
        ("/?token={token}", {"host": "127.0.0.1"}, "host"),
        ("/api/state", {"x-distillnet-token": "{token}", "host": "rebound.example:{port}"}, "host"),
        ("/api/state", {"x-distillnet-token": "{token}", "origin": "http://a.example"}, "origin"),
        ("/api/state", {"x-distillnet-token": "{token}", "origin": "null"}, "origin"),
        ("/api/state", {"x-distillnet-token": "{token}", "origin": "http://127.0.0.1"}, "origin"),
    ],
)  # fmt: skip
def test_others_are_refused(studio: Studio, path: str, headers: dict[str, str], why: str) -> None:
    known = {"token": studio.token, "port": str(urlsplit(studio.address).port)}
    given = {name: value.format(**known) for name, value in headers.items()}
    for method in ("GET", "POST"):
        status, text = studio.ask(path.format(**known), given, method)
        assert status == 403
        assert method == "POST" or why in text


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
    assert room.written() == []
    assert [name for _, _, files in os.walk(tmp_path) for name in files] == []


def test_what_goes_wrong_is_told_and_the_next_work_begins(home: Path, tmp_path: Path) -> None:
    room, jobs = Workroom(gather(open_run(home / "run"), images=False), tmp_path / "out"), Jobs()
    jobs.start("Exporting", lambda told: room.export("absent", "pt2", told))
    jobs.wait(60)
    assert jobs.latest.state == "failed"
    assert "absent" in jobs.latest.message
    jobs.start("Nothing", lambda told: 1)
    jobs.wait(60)
    assert (jobs.latest.state, jobs.latest.result) == ("done", 1)
