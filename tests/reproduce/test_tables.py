"""Which jobs a table has, and what is said of their figures; measuring itself is `distill`."""

from pathlib import Path

import pytest

from distillnet.errors import InputError
from distillnet.reproduce import Asked, Job, Row, jobs_of, lines_of, read_rows, write_rows

NAMES = [f"n{i}" for i in range(12)]


def _row(job: Job, **figures: float) -> Row:
    known = {"mac_ratio": 2.0, "loss_pp": 0.5, "seconds": {"total": 3.0}, **figures}
    return Row(job, known, "0" * 64)


def test_sets_of_classes_are_drawn_once_and_alike_for_a_seed() -> None:
    jobs = jobs_of(Asked("table2", repeat=5), NAMES)
    assert [len(job.classes) for job in jobs] == [5] * 5 + [10] * 5  # 15 are more than there are
    assert len({job.classes for job in jobs}) == len(jobs)
    assert jobs == jobs_of(Asked("table2", repeat=5), NAMES)
    assert jobs != jobs_of(Asked("table2", repeat=5, seed=1), NAMES)
    assert len(jobs_of(Asked("table2", repeat=9, sizes=(10,)), NAMES[:10])) == 1


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
    path.write_text('{"job": {}}\n')
    with pytest.raises(InputError, match="no measured row"):
        read_rows(path)
