"""What a report is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Absent", "Section"]


@dataclass(frozen=True)
class Section:
    """A part of the page: ``values`` fill the template ``NAME.html``."""

    name: str
    title: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Absent:
    """A part that the page is without: why, and the command that adds it; "" where none does."""

    title: str
    why: str
    command: str
