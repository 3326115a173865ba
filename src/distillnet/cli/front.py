"""The front of a search as text, which grows on a terminal while the search goes on."""

from collections.abc import Sequence

from rich.text import Text

__all__ = ["front_text"]

_COLUMNS, _ROWS = 48, 8
_LABEL = 7  # characters of a number beside the rows

Points = Sequence[tuple[float, float, bool]]


def front_text(points: Points, *, ascii_only: bool = False) -> Text:
    """Loss that is expected (upwards) against how many times less there is to do (rightwards).

    Args:
        points: as ``search.store.Store.on_front`` has them; empty ones give an empty text.
        ascii_only: for terminals that show nothing else.

    >>> print(front_text([(2.0, 0.5, True), (4.0, 2.0, False)]).plain.splitlines()[0].strip())
    points of loss expected;  ● within the budget, ○ beyond
    """
    if not points:
        return Text("")
    inside, outside, bar, corner, line = "*o|+-" if ascii_only else "●○│└─"
    right = max(2.0, *(ratio for ratio, _, _ in points))
    top = max(1.0, *(loss for _, loss, _ in points))
    bottom = min(0.0, *(loss for _, loss, _ in points))
    grid = [[" "] * _COLUMNS for _ in range(_ROWS)]
    for ratio, loss, within in points:
        column = round((ratio - 1) / (right - 1) * (_COLUMNS - 1))
        row = round((top - loss) / (top - bottom) * (_ROWS - 1))
        grid[row][max(0, column)] = inside if within else outside
    text = Text(f"  points of loss expected;  {inside} within the budget, {outside} beyond\n")
    for i, cells in enumerate(grid):
        at = top - i / (_ROWS - 1) * (top - bottom)
        label = f"{at:+.1f}" if i in (0, _ROWS // 2, _ROWS - 1) else ""
        text.append(f"{label:>{_LABEL}} {bar}")
        for cell in cells:
            text.append(cell, "green" if cell == inside else "yellow")
        text.append("\n")
    text.append(f"{'':>{_LABEL}} {corner}{line * _COLUMNS}\n")
    text.append(f"{'':>{_LABEL}}  1 x{f'{right:.1f} x less work':>{_COLUMNS - 3}}")
    return text
