"""The page of GoogLeNet, with its weights and real images."""

from pathlib import Path
from typing import Any

import pytest

from commands import run_command
from distillnet.job.runs import open_run
from distillnet.pages.report import write_report
from distillnet.pages.report.writing import AT_MOST
from looking import DESKTOP, PHONE, looked_at, serious

_CLASSES = {"n01440764": "tench", "n03028079": "church"}


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few images and one candidate: how good it is does not matter here."""
    home = tmp_path_factory.mktemp("googlenet")
    for part, n in (("train", 4), ("val", 2)):
        for folder in _CLASSES:
            source = sorted((data_dir / "imagenette" / part / folder).iterdir())[:n]
            (home / "data" / part / folder).mkdir(parents=True)
            for image in source:
                (home / "data" / part / folder / image.name).symlink_to(image.resolve())
    weights = home / "weights.safetensors"
    weights.symlink_to((data_dir / "weights" / "bvlc_googlenet.safetensors").resolve())
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "distill", "zoo:bvlc_googlenet", "--weights", str(weights), "--data",
            str(home / "data"), "--classes", ",".join(_CLASSES.values()), "--keep-input-size",
            "--target-macs", "1.5", "--score", "l1", "--no-views", "--out", str(home / "run"),
        )  # fmt: skip
    return home / "run"


@pytest.mark.slow
def test_it_shows_all_of_a_real_network_and_is_small(run: Path, browser: Any) -> None:
    path, absent = write_report(run, with_images=True)
    assert [one.title for one in absent] == [
        "Latency by runtime",
        "How often images of none of the classes are refused",
    ], absent
    assert path.stat().st_size < AT_MOST
    result = open_run(run).result
    for size in (DESKTOP, PHONE):
        with looked_at(browser, path.as_uri(), size) as seen:
            page = seen.page
            assert page.locator("#costs tbody tr").count() == 58
            assert page.locator("#activity details").count() == len(result["layers"]) == 57
            assert page.locator("#activity img.looks").count() == 57
            assert page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            assert serious(page) == []
            assert (seen.said, seen.asked) == ([], [])
