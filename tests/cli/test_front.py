"""The front of a search as text that grows on a terminal."""

import io

import pytest

from distillnet.cli import output
from distillnet.cli.front import front_text

POINTS = ((6.0, 2.0, False), (4.0, 0.5, True), (2.0, -0.5, True))


def _places(points: tuple[tuple[float, float, bool], ...]) -> list[tuple[int, int]]:
    """(column, row) of each mark, from left to right."""
    rows = front_text(points).plain.splitlines()[1:]
    return sorted(
        (x, y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark in "●○"
    )


def test_more_saved_lies_to_the_right_and_more_lost_above() -> None:
    (left, low), (middle, half), (right, high) = _places(POINTS)
    assert left < middle < right
    assert low > half > high
    text = front_text(POINTS)
    assert text.plain.count("○") - 1 == 1  # one in the legend
    assert "6.0 x less work" in text.plain
    assert "+2.0" in text.plain
    assert "-0.5" in text.plain


@pytest.mark.parametrize(
    "points", [(), ((1.0, 0.0, True),), ((1.5, 90.0, False), (0.9, 90.0, True))]
)
def test_few_points_are_no_trouble(points: tuple[tuple[float, float, bool], ...]) -> None:
    assert len(_places(points)) == len(points)


def test_plain_terminals_get_plain_marks() -> None:
    assert front_text(POINTS, ascii_only=True).plain.isascii()


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_it_below_the_bars_and_a_file_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for stream, shown in ((_Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with output.progress() as on_progress:
            on_progress("search", 1, 20)
            on_progress.on_front(POINTS)
        assert ("points of loss expected" in stream.getvalue()) is shown
