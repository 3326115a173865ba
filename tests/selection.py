"""Tables of cases of which `make test` takes some, and `make exhaustive` all."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["exhaustive"]


def exhaustive(cases: Iterable[Any], chosen: Callable[[Any], bool]) -> list[Any]:
    """Cases, values or tuples of values, marked where they are not chosen.

    Chosen is what fails where its like fails; a change that could break one alone, such as a new
    operator, is tried on all of them.
    """
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = () if chosen(case) else pytest.mark.exhaustive
        marked.append(pytest.param(*values, marks=marks))
    return marked
