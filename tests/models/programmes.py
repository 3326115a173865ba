"""Programmes on disk, and how to change what they say."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["edit", "on_graph"]


def edit(source: Path, target: Path, **changes: object) -> None:
    """Copy an archive, its records changed by functions of their bytes, or added."""
    with zipfile.ZipFile(source) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(records)).partition("/")[0]
    for name, change in changes.items():
        key = f"{root}/{name}"
        records[key] = change(records.get(key, b"")) if callable(change) else change
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def on_graph(change: Callable[[dict, dict], object]) -> dict[str, object]:
    def rewrite(data: bytes) -> bytes:
        document = json.loads(data)
        change(document, document["graph_module"]["graph"])
        return json.dumps(document).encode()

    return {"models/model.json": rewrite}
