"""A run and an atlas of a tiny network, and the readers of each of their files."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import mutate
from distillnet.atlas import open_atlas
from distillnet.cut.times import built_in_times, read_times
from distillnet.files.manifest import MANIFEST
from distillnet.job.front import take_from_front
from distillnet.job.provenance import PROVENANCE, read_provenance
from distillnet.job.runs import open_run
from distillnet.search import Budget
from distillnet.search.store import open_store
from kinds import Reader

__all__ = ["HOW", "RESULTS", "empty", "mended", "one_of", "run_command", "run_folder"]

_SIDE = 16
HOW = ("--input-size", str(_SIDE), "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
_NET = f"""
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    head = nn.Linear(6 * {_SIDE - 2} ** 2, 4)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), head)
"""


def run_folder(parent: Path) -> Path:
    """A folder with a run of a tiny network, and its atlas."""
    folder = parent / "fuzz"
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(_NET)
    draw = np.random.default_rng(0)
    for c in "012":
        (folder / "photos" / c).mkdir(parents=True)
        for i in range(10):
            pixels = draw.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / c / f"{i}.png")
    words = [f"{folder / 'net.py'}:net", *HOW, "--data", str(folder / "photos")]
    run_command("distill", *words, "--classes", "0,1,2", "--out", str(folder / "run"))
    return folder


def run_command(*words: str) -> None:
    from distillnet.cli import main

    before, sys.argv = sys.argv, ["distillnet", *words]
    try:
        main()
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        sys.argv = before


def one_of(name: str, folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes()]


def mended(
    where: str,
    name: str,
    read: Callable[[Path], object],
    data: bytes,
    folder: Path,
    *,
    as_listed: bool = False,
) -> object:
    """Read a result of which one file is another, and listed as if it had always been so.

    Args:
        as_listed: or not, as a disk that fails leaves it.
    """
    result = folder / where
    path, manifest = result / name, result / MANIFEST
    before, listed = path.read_bytes(), manifest.read_bytes()
    try:
        path.write_bytes(data)
        if name != MANIFEST and not as_listed:
            manifest.write_text(json.dumps(_listed(listed, name, data)))
        return read(result)
    finally:
        path.write_bytes(before)
        manifest.write_bytes(listed)


def _listed(manifest: bytes, name: str, data: bytes) -> Mapping[str, object]:
    document = json.loads(manifest)
    sealed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {**document, "files": {**document["files"], name: sealed}}


def _read_atlas(path: Path) -> None:
    atlas = open_atlas(path)
    for site in atlas.sites:
        atlas.heat(site, list(atlas.counts))
        atlas.variance(site, list(atlas.counts))


def empty(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _take(path: Path) -> None:
    taken = empty(path.parent / "taken")
    take_from_front(open_run(path), Budget(max_loss_pp=100.0), taken)
    open_run(taken)


def _of_run(
    name: str, read: Callable[[Path], object], damage: mutate.Mutator, cost: float
) -> Reader:
    reading = partial(mended, "run", name, read)
    return Reader(partial(one_of, f"run/{name}"), damage, reading, cost)


def _of_atlas(name: str, damage: mutate.Mutator) -> Reader:
    reading = partial(mended, "run/atlas", name, _read_atlas)
    return Reader(partial(one_of, f"run/atlas/{name}"), damage, reading, 2e-3)


def _timings(folder: Path) -> list[bytes]:
    return [built_in_times().dumps().encode()]


def _read_timings(data: bytes, folder: Path) -> None:
    path = folder / "times.json"
    path.write_bytes(data)
    read_times(path).dumps()


_SETTINGS = {"network": "net.py:net", "classes": [0, 1, 2], "options": {"score": "heat"}}


def _searches(folder: Path) -> list[bytes]:
    """What an interrupted search leaves, without the results it knows of."""
    return [json.dumps({"format": 1, "settings": _SETTINGS, "known": []}).encode()]


def _resume(data: bytes, folder: Path) -> None:
    (folder / "unfinished").mkdir(exist_ok=True)
    (folder / "unfinished" / "search.json").write_bytes(data)
    open_store(folder / "unfinished", _SETTINGS, resume=True)


RESULTS: Mapping[str, Reader] = {
    "mission.json": _of_run("mission.json", open_run, mutate.in_json, 1e-3),
    "result.json": _of_run("result.json", open_run, mutate.in_json, 1e-3),
    "manifest.json": _of_run("manifest.json", open_run, mutate.in_json, 1e-3),
    "front": _of_run("front/00/result.json", _take, mutate.in_json, 5e-3),
    "images.safetensors": _of_run(PROVENANCE, read_provenance, mutate.in_safetensors, 1e-3),
    "atlas.json": _of_atlas("atlas.json", mutate.in_json),
    "statistics": _of_atlas("0.safetensors", mutate.in_safetensors),
    "timings": Reader(_timings, mutate.in_json, _read_timings),
    "search.json": Reader(_searches, mutate.in_json, _resume),
}
