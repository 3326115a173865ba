"""The service of docs/raspberry-pi.md reads what people drop into a folder, and leaves it there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distillnet as dn
from distillnet.deploy import Deployable, write_onnx
from distillnet.images import ImageRef, read_image
from distillnet.images.preprocessing import preprocess
from untrained_run import SIDE

PAGE = Path(__file__).parents[2] / "docs" / "raspberry-pi.md"
_ALONE = "import sys; sys.modules.update(torch=None, distillnet=None); sys.argv = ['', 'inbox']; "


@pytest.fixture(scope="module")
def device(network: Deployable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied to the device: the network and the service, as the page has it."""
    folder = tmp_path_factory.mktemp("device")
    write_onnx(network, folder / "model.onnx", with_preprocessing=True)
    source = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert source is not None
    (folder / "service.py").write_text(source[1])
    return folder


@pytest.fixture
def inbox(device: Path) -> Iterator[Path]:
    (device / "inbox").mkdir()
    yield device / "inbox"
    shutil.rmtree(device / "inbox")


@pytest.fixture
def serve(device: Path, inbox: Path) -> Iterator[Callable[[], str]]:
    """Starts the service, without torch; each call gives its next line."""
    started: list[subprocess.Popen[str]] = []

    def line() -> str:
        if not started:
            command = [sys.executable, "-c", _ALONE + "exec(open('service.py').read())"]
            started.append(subprocess.Popen(command, cwd=device, stdout=subprocess.PIPE, text=True))
        stdout = started[0].stdout
        assert stdout is not None
        return stdout.readline().rstrip()

    yield line
    for process in started:
        process.kill()
        process.wait()


def _pictures(inbox: Path) -> dict[str, Image.Image]:
    """Pictures of every kind, and none that is red on top by mistake."""
    draw = np.random.default_rng(3)
    pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    grey = draw.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
    alpha = np.dstack([pixels, draw.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)])
    made = {
        "plain.png": Image.fromarray(pixels),
        "sixteen bits.png": Image.fromarray(grey),
        "glass.png": Image.fromarray(alpha),
        "no suffix": Image.fromarray(pixels[::-1].copy()),
    }
    for name, image in made.items():
        image.save(inbox / name, format="png")
    return made


def test_every_kind_of_picture_is_read_as_distillnet_reads_it_and_stays(
    inbox: Path, serve: Callable[[], str], network: Deployable, run: Path
) -> None:
    mission = dn.open_run(run).mission
    want = {}
    for name in _pictures(inbox):
        x = preprocess(read_image(ImageRef(inbox / name, 0)), network.preprocessing)
        shares = network.module(x[None])[0].softmax(0)
        share = min(0.999, float(shares.max()))
        best = mission.names[int(shares.argmax())]
        want[name] = (f"{best}, likeliest of {len(mission)}", share)
    (inbox / "a folder.png").mkdir()
    (inbox / ".hidden.png").write_bytes(b"of the system")
    (broken := inbox / "broken.jpg").write_bytes(b"\xff\xd8\xff cut off")
    os.utime(broken, (0, 0))  # it has been so for long
    before = {path: path.stat().st_mtime_ns for path in inbox.iterdir()}
    said = dict(serve().split(": ", 1) for _ in (broken, *want))
    assert said.pop("broken.jpg").startswith("cannot be read (")
    assert said.keys() == want.keys()
    for name, (text, share) in want.items():
        words, _, number = said[name].rpartition(" (")
        assert words == text
        assert float(number.rstrip(")")) == pytest.approx(share, abs=2e-3)
    assert {path: path.stat().st_mtime_ns for path in inbox.iterdir()} == before


def test_a_picture_that_comes_or_changes_is_answered_once(
    inbox: Path, serve: Callable[[], str]
) -> None:
    images = _pictures(inbox)
    for _ in images:
        serve()
    images["plain.png"].save(inbox / "plain.png")
    os.utime(inbox / "plain.png", (1, 1))
    assert serve().startswith("plain.png: ")
    images["glass.png"].save(inbox / "later.png")
    assert serve().startswith("later.png: ")


def test_the_page_says_what_a_closed_set_means() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in ("knows of no others", "pizza", "no certainty", "classes of their own"):
        assert words in text
