"""The rule as a run folder keeps it: ``unknown.json``."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from distillnet.errors import InputError
from distillnet.files.documents import Document, Positive, Sha256, Text, encode, read_document
from distillnet.files.regular import read_regular

__all__ = ["RULE", "Rule", "read_rule", "unknown_name", "write_rule"]

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


class _Document(Document, frozen=True):
    format: int
    network_sha256: Sha256
    temperature: Positive
    weight: Annotated[list[float], Meta(min_length=1, max_length=2**20)]
    bias: float
    figures: dict[Text, float | int | None]


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
    rule: Rule, network: Path, path: Path, figures: dict[str, float | int | None]
) -> None:
    """Write a rule for the network in the file ``network``, with what was measured of it."""
    about = {"format": _FORMAT, "network_sha256": _sha256(network)}
    text = json.dumps(about | asdict(rule) | {"figures": figures}, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_rule(directory: Path) -> tuple[Rule, dict[str, float | int | None]]:
    """The rule of a run, and what was measured of it.

    Raises:
        InputError: there is none, it is damaged, or of another network than the run's of now.
    """
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
    rule = Rule(document.temperature, tuple(document.weight), document.bias)
    return rule, encode(document)["figures"]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path, _AT_MOST)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); distill again") from error
