"""JSON that may come from anybody: read against a schema, or refused.

A schema is a tree of ``Document`` classes, which msgspec decodes straight into, so nothing is built
that the schema does not know. Keys that are missing, unknown or of another type are refused by
name; no schema contains itself, so what is nested deeper does not fit; JSON has no NaN or infinity,
and numbers beyond float64 are refused. Files are bounded, and so is all that they hold.
"""

from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import msgspec
from msgspec import Meta, Struct

from distillnet.errors import InputError
from distillnet.files.regular import read_regular

__all__ = [
    "Count",
    "Document",
    "Positive",
    "Sha256",
    "Share",
    "Side",
    "Text",
    "document_of",
    "encode",
    "read_document",
]

_AT_MOST = 64 * 2**20  # bytes of a file; a run of GoogLeNet has 50,000

Count = Annotated[int, Meta(ge=0, le=2**53)]
Side = Annotated[int, Meta(ge=1, le=16_384)]  # pixels
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(max_length=10_000)]


class Document(Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON object of exactly these keys."""


class _AnyFormat(Struct):
    format: Count


D = TypeVar("D")


def read_document(
    path: Path,
    schema: type[D],
    remedy: str,
    *,
    format_: int | None = None,
    at_most: int = _AT_MOST,
) -> D:
    """The content of a JSON file.

    Args:
        remedy: what to do about a file that does not fit, to stand at the end of the message.
        format_: what its key ``format`` has to be; None where it has none.
        at_most: bytes.

    Raises:
        InputError: it cannot be read, is of another format, or does not fit the schema.
    """
    try:
        data = read_regular(path, at_most)
        if format_ is not None:
            found = msgspec.json.decode(data, type=_AnyFormat).format
            if found != format_:
                whose = "an older" if found < format_ else "a newer"
                raise InputError(
                    f"{path} is of format {found}, written by {whose} version of distillnet; this "
                    f"one reads format {format_}. Use that version, or {remedy}"
                )
        return msgspec.json.decode(data, type=schema)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except RecursionError as error:
        raise InputError(
            f"{path} is nested too deep to be what distillnet writes; {remedy}"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = str(error).replace("`", "'")
        raise InputError(
            f"{path} does not hold what distillnet writes there ({reason[:300]}); {remedy}"
        ) from error


def encode(value: object) -> dict[str, Any]:
    """A document as plain objects: dicts, lists, strings and numbers."""
    return cast(dict[str, Any], msgspec.json.decode(msgspec.json.encode(value)))


def document_of(
    kind: type,
    check: Callable[[Any], None] | None = None,
    *,
    without: Collection[str] = (),
    later: Collection[str] = (),
    **others: Any,
) -> type[Document]:
    """The schema of what ``dataclasses.asdict`` makes of a dataclass.

    Args:
        check: called with each document; raises ValueError where values do not fit together.
        without: keys that are not written.
        later: keys that older files lack, and that are then what the dataclass has by default.
        others: types of further keys, or of those whose values JSON writes another way.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: int
    >>> msgspec.json.decode(b'{"x": 1}', type=document_of(Point)).x
    1
    """
    hints = get_type_hints(kind)
    written = [f for f in fields(kind) if f.name not in without]
    members = {f.name: hints[f.name] for f in written if f.name not in later} | others
    new = [(f.name, hints[f.name], f.default) for f in written if f.name in later]
    namespace = {"__post_init__": check} if check else {}
    return cast(
        type[Document],
        msgspec.defstruct(kind.__name__, [*members.items(), *new], bases=(Document,),
                          namespace=namespace, frozen=True, forbid_unknown_fields=True),
    )  # fmt: skip
