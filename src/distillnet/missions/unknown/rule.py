"""The rule as a run folder keeps it: ``unknown.json``."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from distillnet.errors import InputError
from distillnet.files.documents import Document, Positive, Sha256, Text, encode, read_document
from distillnet.files.regular import read_regular

__all__ = ["RULE", "Rule", "read_curve", "read_rule", "unknown_name", "write_rule"]

RULE = "unknown.json"
_FORMAT = 1
_AT_MOST = 2**31  # bytes of model.pt2
_REMEDY = "fit it again with `distillnet unknown RUN`"


@dataclass(frozen=True)
class Rule:
    """A score for what is unknown: ``weight`` times the features before the head, plus ``bias``.

    An image is refused where this is larger than the mission's largest score over ``temperature``.
    """

    temperature: float
    weight: tuple[float, ...]
    bias: float


_Share = Annotated[float, Meta(ge=0, le=1)]


class _Document(Document, frozen=True):
    format: int
    network_sha256: Sha256
    temperature: Positive
    weight: Annotated[list[float], Meta(min_length=1, max_length=2**20)]
    bias: float
    figures: dict[Text, float | int | None]
    curve: Annotated[list[tuple[_Share, _Share]], Meta(max_length=1000)] = field(
        default_factory=list
    )


def unknown_name(classes: tuple[str, ...]) -> str:
    """What the score is called, unlike any of the mission's classes.

    >>> unknown_name(("cat", "dog")), unknown_name(("cat", "unknown"))
    ('unknown', 'unknown input')
    """
    name = "unknown"
    while name in classes:
        name += " input"
    return name


def write_rule(
    rule: Rule,
    network: Path,
    path: Path,
    figures: dict[str, float | int | None],
    curve: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a rule for the network in the file ``network``, with what was measured of it.

    Args:
        curve: see ``operating.rejection_curve``.
    """
    about = {"format": _FORMAT, "network_sha256": _sha256(network)}
    measured = {"figures": figures, "curve": [[round(x, 6) for x in point] for point in curve]}
    text = json.dumps(about | asdict(rule) | measured, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_rule(directory: Path) -> tuple[Rule, dict[str, float | int | None]]:
    """The rule of a run, and what was measured of it.

    Raises:
        InputError: there is none, it is damaged, or of another network than the run's of now.
    """
    document = _read(directory)
    rule = Rule(document.temperature, tuple(document.weight), document.bias)
    return rule, encode(document)["figures"]


def read_curve(directory: Path) -> tuple[tuple[float, float], ...]:
    """Shares of false rejects and false accepts by threshold; empty where they are not noted.

    Raises:
        InputError: as ``read_rule``.
    """
    return tuple(_read(directory).curve)


def _read(directory: Path) -> _Document:
    path = directory / RULE
    if not path.is_file():
        raise InputError(
            f"{directory} has no rule for unknown images ({RULE}); {_REMEDY} --unknown DIR"
        )
    document = read_document(path, _Document, _REMEDY, format_=_FORMAT)
    if document.network_sha256 != _sha256(directory / "model.pt2"):
        raise InputError(
            f"{path} was fitted to another network than that in {directory}, which was distilled "
            f"again; {_REMEDY}"
        )
    return document


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path, _AT_MOST)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); distill again") from error
