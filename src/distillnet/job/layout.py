"""What lies in a run folder, and where all else lies as seen from it, for those who look first.

Nothing here names a folder of the machine that a run was made on.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillnet.files.layout import is_workplace
from distillnet.files.results import RUN

__all__ = [
    "FRONT",
    "RUN_MARKER",
    "TIMES",
    "UNFINISHED",
    "file_of",
    "place_of",
    "relative_sources",
]

RUN_MARKER = RUN.marker
FRONT = "front"  # the folder of networks for other budgets
TIMES = "times.json"  # how long layers take, as the search had it
UNFINISHED = "unfinished"  # the folder of what an interrupted search found
_ELSEWHERE = "(elsewhere)"  # a source that was given and is not named


def file_of(spec: str) -> str | None:
    """The file in a MODEL argument, where it is one of the user's.

    >>> file_of("nets/small.py:Net"), file_of("timm:resnet18")
    ('nets/small.py', None)
    """
    file = spec.rpartition(":")[0] if ".py:" in spec else spec
    return file if file.endswith((".py", ".pt2")) else None


def relative_sources(sources: Mapping[str, Any], directory: Path) -> dict[str, str | None]:
    """Where things lie as seen from a run, without folders of the machine that it was made on.

    What lies in or beside the run, or in a folder that both are below, is found again even after
    all of it was moved. What is elsewhere is noted as that, and has to be named again: its path
    would tell who made the run and where. So is a name that is no UTF-8, which JSON cannot hold.
    """
    run = directory.resolve()
    # A run is made in a workplace beside its final name.
    place = run.parent.parent / run.name if is_workplace(run.parent.name) else run
    tells = {Path(run.anchor), Path("~").expanduser().parent}
    kept: dict[str, str | None] = dict.fromkeys(sources)
    for name, source in sources.items():
        path = _as_named(source) if source else None
        if path and path.name != _ELSEWHERE and path.is_relative_to(run):
            kept[name] = path.relative_to(run).as_posix()
        elif path and path.name == _ELSEWHERE:  # so the run says that this one was taken from
            kept[name] = _ELSEWHERE
        elif path:
            shared = next(p for p in (place, *place.parents) if path.is_relative_to(p))
            kept[name] = _ELSEWHERE
            if shared not in tells:
                kept[name] = Path(os.path.relpath(path, place)).as_posix()
    return {name: _nameable(path) for name, path in kept.items()}


def _as_named(source: str | Path) -> Path:
    """Where a source is, a link by its own name: what it points to may be anywhere."""
    path = Path(source)
    return path.parent.resolve() / path.name if path.is_symlink() else path.resolve()


def _nameable(path: str | None) -> str | None:
    try:
        return path and path.encode().decode()
    except UnicodeEncodeError:
        return _ELSEWHERE


def place_of(directory: Path, path: str | None) -> str | None:
    """Where a source lies now, wherever the run was moved to."""
    return os.path.normpath(directory.resolve() / path) if path else None
