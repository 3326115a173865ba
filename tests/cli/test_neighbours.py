"""A user whose other programs make a search slow is told so."""

from pathlib import Path

import pytest

from distillnet.cli.process import neighbours
from distillnet.cli.process.neighbours import advice, busy_processors


def _stat(*times: int, processors: int = 2) -> str:
    rows = ["cpu  " + " ".join(map(str, times))]
    rows += [f"cpu{i} 0 0 0 0 0 0 0 0 0 0" for i in range(processors)]
    return "\n".join([*rows, "intr 1 2 3", "ctxt 5"]) + "\n"


# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
_BEFORE = (1000, 10, 100, 5000, 50, 1, 2, 3, 400, 5)


@pytest.mark.parametrize(
    ("more", "busy"),
    [
        ((0, 0, 0, 60, 0, 0, 0, 0, 0, 0), 0.0),
        ((30, 0, 0, 30, 0, 0, 0, 0, 0, 0), 1.0),
        ((20, 4, 4, 20, 10, 1, 1, 0, 0, 0), 1.0),  # waiting for a disk is no work
        ((45, 0, 15, 0, 0, 0, 0, 0, 45, 0), 2.0),  # a guest's time is a user's already
    ],
)
def test_what_others_use_is_what_is_not_idle(
    more: tuple[int, ...], busy: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text(_stat(*_BEFORE))
    later = [then + now for then, now in zip(_BEFORE, more, strict=True)]
    monkeypatch.setattr(neighbours, "_STAT", stat)
    monkeypatch.setattr(neighbours.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(neighbours.time, "sleep", lambda _: stat.write_text(_stat(*later)))
    assert busy_processors() == pytest.approx(busy)


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu 1 2 3\n", "cpu a b c d e f g h\ncpu0\ncpu1\n"])
def test_a_system_that_tells_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_STAT", tmp_path / "none")
    assert busy_processors() is None
    monkeypatch.setattr(neighbours, "_STAT", tmp_path / "stat")
    (tmp_path / "stat").write_text(text)
    assert busy_processors() is None


@pytest.mark.parametrize(
    ("busy", "threads", "processors", "left"),
    [
        (None, 2, 2, None),
        (0.4, 2, 2, None),
        (1.9, 1, 2, None),  # a single thread waits for nobody
        (3.0, 4, 8, None),
        (1.0, 2, 2, 1),
        (2.0, 2, 2, 1),
        (3.1, 8, 8, 5),
    ],
)
def test_who_is_told(busy: float | None, threads: int, processors: int, left: int | None) -> None:
    said = advice(busy, threads, processors)
    assert (said is None) == (left is None)
    assert said is None or said.endswith(f"OMP_NUM_THREADS={left}.")
