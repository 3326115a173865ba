"""Which jobs a table has, and what is said of their figures; measuring itself is `distill`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillnet.errors import InputError
from distillnet.reproduce import (
    Asked,
    Job,
    Row,
    jobs_of,
    lines_of,
    read_rows,
    related_sets,
    write_rows,
)
from distillnet.reproduce.paper import MODULES
from distillnet.reproduce.pictures import draw_table

BESTS: tuple[dict[str, Any], ...] = ({"param_weight": 3.0},)
PAPERS: tuple[dict[str, Any], ...] = ({"readings": ("output",)}, {"partial": "blocks"})
NAMES = [f"n{i}" for i in range(12)]


def _row(job: Job, **figures: Any) -> Row:
    known = {
        "mac_ratio": 2.0, "param_ratio": 2.0, "loss_pp": 0.5, "worst_class_loss_pp": 1.5,
        "loss_ci95_pp": [-0.5, 1.5], "seconds": {"total": 3.0},
        "n_images": {"statistics": 20, "search": 20, "val": 10, "unreadable": 0},
        "mac_ratio_with_partial": 2.0, "inception_mac_ratio": None, "peak_rss_mb": 100.0, **figures,
    }  # fmt: skip
    return Row(job, known, "0" * 64)


def test_sets_of_classes_are_drawn_once_and_alike_for_a_seed() -> None:
    jobs = jobs_of(Asked("table2", repeat=5), NAMES)
    assert [len(job.classes) for job in jobs] == [5] * 5 + [10] * 5  # 15 are more than there are
    assert len({job.classes for job in jobs}) == len(jobs)
    assert jobs == jobs_of(Asked("table2", repeat=5), NAMES)
    assert jobs != jobs_of(Asked("table2", repeat=5, seed=1), NAMES)
    assert len(jobs_of(Asked("table2", repeat=9, sizes=(10,)), NAMES[:10])) == 1


def test_options_of_the_other_method_make_no_other_job() -> None:
    both = [Asked("table3", method, removed=(1,)) for method in ("best", "paper")]
    for asked, other, own in zip(both, (PAPERS, BESTS), (BESTS, PAPERS), strict=True):
        for option in other:
            assert jobs_of(replace(asked, **option), ()) == jobs_of(asked, ())
        for option in own:
            assert jobs_of(replace(asked, **option), ()) != jobs_of(asked, ())


def test_the_first_classes_are_removed() -> None:
    jobs = jobs_of(Asked("table3", removed=(8, 1)), ())
    assert [(j.network, j.group, j.paper) for j in jobs] == [
        ("mnist", 1, 10), ("mnist", 8, 71), ("cifar", 1, 10), ("cifar", 8, 76),
    ]  # fmt: skip
    assert jobs[0].classes == tuple("123456789")
    assert jobs[1].classes == ("8", "9")
    assert all(job.timed and job.network == "mnist" for job in jobs_of(Asked("table4"), ()))


# Parameters before over after, points lost -> as good as the paper's 71 % at one point?
ROWS = {
    "as the paper": (1 / 0.29, 1.0, True),
    "fewer": (3.0, 0.0, False),
    "more at too high a price": (9.0, 1.1, False),
    "more at a gain": (9.0, -0.3, True),
}


@pytest.mark.parametrize(("ratio", "loss", "better"), ROWS.values(), ids=ROWS)
def test_a_row_is_better_only_within_the_budget(ratio: float, loss: float, better: bool) -> None:
    job = jobs_of(Asked("table3", removed=(8,), networks=("mnist",)), ())[0]
    (line,) = lines_of([_row(job, param_ratio=ratio, loss_pp=loss)])
    assert line.better is better
    assert line.ours == pytest.approx(100 * (1 - 1 / ratio))


def test_sets_are_averaged() -> None:
    jobs = jobs_of(Asked("table2", repeat=2, sizes=(5,)), NAMES)
    rows = [_row(job, inception_mac_ratio=r) for job, r in zip(jobs, (1.5, 2.5), strict=True)]
    (line,) = lines_of(rows)
    assert (line.ours, line.sets, line.paper) == (2.0, 2, 1.8)
    assert line.ours_deviation == pytest.approx(0.5**0.5)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == []
    rows = [_row(job, param_ratio=2.0) for job in jobs_of(Asked("table3", removed=(1, 2)), ())]
    write_rows(rows, path)
    assert read_rows(path) == rows
    earlier = json.loads(path.read_text().splitlines()[0])
    del earlier["figures"]["n_images"]
    for line, said in (('{"job": {}}', "no measured row"), (json.dumps(earlier), "n_images")):
        path.write_text(line + "\n")
        with pytest.raises(InputError, match=said):
            read_rows(path)


def test_related_classes_are_those_of_least_angle() -> None:
    """Three kinds of four classes each, in any order and of any length."""
    torch.manual_seed(0)
    kinds = torch.randn(3, 16)
    directions = torch.stack([kinds[i % 3] * (1 + i) + 0.1 * torch.randn(16) for i in range(12)])
    names = {f"c{i}": i for i in range(12)}
    sets = related_sets(directions, names, size=4, count=9)
    expected = [tuple(sorted(f"c{i}" for i in range(12) if i % 3 == k)) for k in range(3)]
    assert sorted(sets) == sorted(expected)
    assert related_sets(directions, names, size=4, count=1) == sets[:1]
    # Where only one of a kind is at hand, its set is the last.
    few = {name: i for name, i in names.items() if i % 3 == 0 or i == 1}
    assert related_sets(directions, few, size=4, count=2)[0] == expected[0]


def test_table_1_has_the_related_sets_or_the_one_that_is_named() -> None:
    related = [("a", "b"), ("c", "d")]
    jobs = jobs_of(Asked("table1"), NAMES, related)
    assert [job.classes for job in jobs] == related
    assert {(job.network, job.paper) for job in jobs} == {("googlenet", 1.95)}
    (job,) = jobs_of(Asked("table1", classes=("x", "y", "z")), NAMES, related)
    assert (job.classes, job.group) == (("x", "y", "z"), 3)


def test_each_reading_sees_the_same_sets() -> None:
    asked = Asked("readings", "paper", networks=("squeezenet",), sizes=(5,), repeat=2)
    jobs = jobs_of(replace(asked, readings=("price", "front")), NAMES)
    price, front = ([j.classes for j in jobs if j.reading == r] for r in ("price", "front"))
    assert len(price) == 2
    assert price == front
    lines = lines_of([_row(job, mac_ratio_with_partial=1.2) for job in jobs])
    assert [(line.reading, line.sets, line.ours) for line in lines] == [
        ("price", 2, 1.2), ("front", 2, 1.2),
    ]  # fmt: skip


def _with_modules(job: Job, halved: str) -> Row:
    before = dict.fromkeys(MODULES, 100000000.0)
    after = before | {halved: 50e6}
    return _row(
        job, inception_mac_ratio=9 / 8.5, modules={m: 1.0 + (m == halved) for m in MODULES},
        module_macs=[before, after],
    )  # fmt: skip


def test_modules_are_averaged_over_sets() -> None:
    jobs = jobs_of(Asked("table2", repeat=2, sizes=(5,)), NAMES)
    (line,) = lines_of([_with_modules(j, m) for j, m in zip(jobs, ("3a", "5b"), strict=True)])
    assert line.modules is not None
    assert line.modules.ours == (1.5, 1, 1, 1, 1, 1, 1, 1, 1.5)
    assert line.modules.macs == line.modules.ours
    assert line.modules.skipped_millions == pytest.approx(50)
    assert (line.modules.paper[0], line.modules.paper_skipped_millions) == (1.03, 485)


def test_a_picture_has_a_part_for_each_row_with_modules(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    heights = []
    for name, asked in (("few", Asked("table2", sizes=(5,))), ("more", Asked("table2"))):
        jobs = jobs_of(asked, NAMES)
        lines = lines_of([_with_modules(job, "4a") for job in jobs])
        assert draw_table("a table", lines, tmp_path / name)
        heights.append(Image.open(tmp_path / name).height)
    assert heights[1] > 1.5 * heights[0]
