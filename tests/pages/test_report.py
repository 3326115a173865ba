"""The report: one file that asks nobody for anything, runs nothing it was not made with, and shows
what the run has."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import run_command
from conftest import HOSTILE, NAMES
from distillnet.errors import InputError
from distillnet.job.runs import open_run, seal_run
from distillnet.missions.unknown import RULE, Rule, write_rule
from distillnet.pages.layers import layer_rows
from distillnet.pages.report import write_report
from distillnet.pages.report.budget import share_interval
from distillnet.pages.subject import gather
from looking import DESKTOP, PHONE, looked_at, serious

SECTIONS = {"summary", "costs", "activity", "classes", "budget"}
BENCH = {
    "threads": 1,
    "machine": "a machine",
    "entries": [
        {"network": network, "runtime": "onnx", "batch": 1, "median_ms": ms, "p05_ms": 0.9 * ms,
         "p95_ms": 1.2 * ms, "runs": 9, "bytes": 1000}
        # The original in both forms, the plain one first, which ratios are of.
        for network, ms in (("original", 4.0), ("original", 3.0), ("distilled", 2.0))
    ],
    "time_ratio": {"onnx": 2.0},
    "mac_ratio": 2.0,
    "realised": {"onnx": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all that there can be in one."""
    folder = tmp_path_factory.mktemp("everything")
    run = Path(shutil.copytree(home / "run", folder / "run"))
    (folder / "data").symlink_to(home / "data")
    (run / "bench.json").write_text(json.dumps(BENCH))
    with pytest.MonkeyPatch.context() as patch:
        run_command(patch, "unknown", str(run), "--unknown", str(home / "others"))
    path, absent = write_report(run, model=f"{home / 'net.py'}:Net", with_images=True)
    assert not absent
    return path


def _page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_times_are_of_the_form_that_their_ratio_is_of(everything: Path) -> None:
    page = everything.read_text(encoding="utf-8")
    assert "4.00 ms" in page
    assert "3.00 ms" not in page
    assert "2.00 times faster" in page


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")]
)
def test_a_browser_shows_every_section_and_asks_no_host(
    everything: Path, browser: Any, size: tuple[int, int], scheme: str
) -> None:
    with looked_at(browser, everything.as_uri(), size, scheme) as seen:
        page = seen.page
        shown = page.eval_on_selector_all("main > section", "all => all.map(one => one.id)")
        assert set(shown) == SECTIONS
        assert page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert serious(page) == []
        assert (seen.said, seen.asked) == ([], [])


def test_a_name_is_text_whatever_it_looks_like(everything: Path, browser: Any) -> None:
    with looked_at(browser, everything.as_uri()) as seen:
        for name in NAMES[:3]:
            assert seen.page.get_by_role("rowheader", name=name, exact=True).count() > 0
        assert seen.said == []
    assert HOSTILE not in _page(everything)


def test_what_gets_in_unescaped_could_neither_run_nor_ask(
    everything: Path, browser: Any, tmp_path: Path
) -> None:
    """The page's policy alone keeps a script and an image of elsewhere from doing anything."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/x"
        bad = f"<script>console.log('ran')</script><img src='{address}' onerror='console.log(2)'>"
        page = tmp_path / "bad.html"
        page.write_text(_page(everything).replace("<main", f"{bad}<main", 1))
        with looked_at(browser, page.as_uri()) as seen:
            assert len(seen.said) >= 2  # refusals, of the script and of the image
            assert all("Content Security Policy" in said for said in seen.said)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_click_sorts_and_another_turns_round(everything: Path, browser: Any) -> None:
    with looked_at(browser, everything.as_uri()) as seen:
        table = seen.page.locator("#costs table")
        head = table.get_by_role("columnheader", name="MACs (M)")

        def column() -> list[float]:
            cells = table.locator("tbody tr td:nth-child(6)").all_inner_texts()
            return [float(text) for text in cells]

        before = column()
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(before) != before
        seen.page.keyboard.press("Enter")  # it has the focus
        assert column() == sorted(before, reverse=True)
        assert "falling" in seen.page.locator("#costs-told").inner_text()


def test_without_being_asked_no_image_is_in_it(run_folder: Path) -> None:
    path, absent = write_report(run_folder, model=f"{run_folder.parent / 'net.py'}:Net")
    text = _page(path)
    assert "image/jpeg" not in text
    assert 'class="maps"' not in text
    assert 'class="looks"' not in text
    assert sum("--with-images" in one.command for one in absent) == 2
    assert str(run_folder.parent) not in text


def test_an_image_that_cannot_be_read_is_left_out(run_folder: Path, tmp_path: Path) -> None:
    """The first, of which feature maps would be shown."""
    data = Path(shutil.copytree(run_folder.parent / "data", tmp_path / "photos"))
    min(path for path in (data / "val").rglob("*") if path.is_file()).write_bytes(b"damaged")
    path, absent = write_report(
        run_folder, data=data, model=f"{run_folder.parent / 'net.py'}:Net",
        with_images=True,
    )  # fmt: skip
    assert 'class="maps"' in _page(path)
    assert not any("--with-images" in one.command for one in absent)


@pytest.mark.parametrize(
    ("gone", "section", "title", "command"),
    [
        ("", "Latency</h3>", "Latency by runtime", "distillnet bench run"),
        ("", 'id="costs"', "Layer by layer", "distillnet report run --model net.py:Net"),
        ("", "Each threshold of the rule", "How often images of none of the classes are refused",
         "distillnet unknown run --unknown DIR"),
        ("atlas", "Heatmap of", "Heatmaps of the classes", "distillnet"),
        ("images.safetensors", "What is taken for what", "Confusion of classes", "--data DIR"),
    ],
)  # fmt: skip
def test_what_a_run_lacks_is_left_out_and_said(
    run_folder: Path, gone: str, section: str, title: str, command: str
) -> None:
    if gone == "atlas":
        shutil.rmtree(run_folder / gone)
    elif gone:
        (run_folder / gone).unlink()
    path, absent = write_report(run_folder)
    assert section not in _page(path)
    lacking = {one.title: one.command for one in absent}
    assert command in lacking[title]
    assert title in _page(path)


def test_layers_add_up_to_the_network(run_folder: Path) -> None:
    """The costs of layers, counted from the file, are those that the result has of the plan."""
    run = open_run(run_folder)
    rows = layer_rows(gather(run, model=f"{run_folder.parent / 'net.py'}:Net"))
    for i, network in enumerate(("baseline", "distilled")):
        assert sum(row.macs[i] for row in rows) == run.result[network]["macs"]
        assert sum(row.params[i] for row in rows) == run.result[network]["params"]
    assert [row.channels[0] for row in rows] == [32, 64, 16, 4]
    assert [row.site is not None for row in rows] == [True, True, True, False]
    assert any(row.channels[1] < row.channels[0] or row.rank for row in rows)


def test_the_command_says_what_is_missing_and_opens_the_page(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    run_command(monkeypatch, "report", str(run_folder), "--json", "--open")
    told = json.loads(capsys.readouterr().out)
    path = run_folder / "report.html"
    assert (told["path"], told["bytes"]) == (str(path), path.stat().st_size)
    assert "Layer by layer" in {one["title"] for one in told["absent"]}
    assert opened == [path.resolve().as_uri()]


def test_images_that_the_network_was_made_of_are_said_to_flatter_it(run_folder: Path) -> None:
    for folder, said in (("val", False), ("train", True)):
        path, _ = write_report(run_folder, data=run_folder.parent / "data" / folder)
        assert ("and flatter it" in _page(path)) is said


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("result.json", lambda values: values["layers"][0].update(channels=0)),
        ("result.json", lambda values: values["layers"][0].update(neurons=-1)),
        ("bench.json", lambda values: values["entries"][0].update(median_ms=0)),
        ("bench.json", lambda values: values.update(entries=values["entries"] * 1000)),
        ("bench.json", lambda values: values.pop("machine")),
    ],
)
def test_figures_that_cannot_be_are_refused(
    run_folder: Path, name: str, change: Callable[[Any], object]
) -> None:
    (run_folder / "bench.json").write_text(json.dumps(BENCH))
    values = json.loads((run_folder / name).read_text())
    change(values)
    (run_folder / name).write_text(json.dumps(values))
    seal_run(run_folder, len(list((run_folder / "front").glob("*"))))
    with pytest.raises(InputError, match=name):
        write_report(run_folder)


def test_other_weights_are_refused(run_folder: Path, tmp_path: Path) -> None:
    text = (run_folder.parent / "net.py").resolve().read_text()
    (tmp_path / "other.py").write_text(text.replace("manual_seed(0)", "manual_seed(1)"))
    with pytest.raises(Exception, match="SHA-256"):
        write_report(run_folder, model=f"{tmp_path / 'other.py'}:Net")
    assert not (run_folder / "report.html").exists()


def test_confusion_is_of_the_same_images_as_the_figures(everything: Path) -> None:
    """The matrices' diagonals give the accuracies that the run found when it was made."""
    text = _page(everything)
    result = open_run(everything.parent).result
    for title, network in (("Original", "baseline"), ("Distilled", "distilled")):
        table = text[text.index(f"<caption>{title}, 24 images") :]
        rows = re.findall(r"<tr><th.*?</tr>", table[: table.index("</table>")], re.S)[1:]
        counts = [[int(n) for n in re.findall(r">(\d+)</td>", row)] for row in rows]
        assert sum(map(sum, counts)) == 24
        right = sum(row[i] for i, row in enumerate(counts))
        assert right / 24 == pytest.approx(result[network]["accuracy"])


def test_a_rule_s_errors_are_those_of_its_file(everything: Path) -> None:
    text = _page(everything)
    section = text[text.index('id="budget"') :]
    figures = json.loads((everything.parent / RULE).read_text())["figures"]
    for n, name in ((figures["n"], "false_reject"), (figures["n_unknown"], "false_accept")):
        low, high = share_interval(figures[name], n)
        shares = [f"{100 * share:.1f} %" for share in (figures[name], low, high)]
        assert f"{shares[0]} (95 %: {shares[1]} to {shares[2]})" in section
    shown = f"{100 * figures['false_reject']:.1f} % refused, {100 * figures['false_accept']:.1f}"
    assert shown in section  # beside the dot in the chart
    assert "has to call them one of these" not in text


def test_a_rule_of_another_network_is_not_shown(run_folder: Path) -> None:
    write_rule(Rule(1.0, (0.0,), 0.0), run_folder / "mission.json", run_folder / RULE, {})
    path, absent = write_report(run_folder)
    assert (
        "was fitted to another network"
        in {one.title: one.why for one in absent}[
            "How often images of none of the classes are refused"
        ]
    )
    assert str(run_folder.parent) not in _page(path)


@pytest.mark.parametrize("share", [0.02, 0.04, 0.5, 0.98])
def test_an_interval_of_a_share_holds_what_would_not_be_strange_to_see(share: float) -> None:
    """Ends of Wilson's interval are 1.96 of their own standard errors from what is seen."""
    for end in share_interval(share, 50):
        away = abs(share - end) / (end * (1 - end) / 50) ** 0.5
        assert away == pytest.approx(1.96, abs=1e-3)
