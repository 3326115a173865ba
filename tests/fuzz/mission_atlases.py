"""Atlases that missions are made from: each of their files, and the way from there to a mission."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from random import Random

from safetensors.torch import load, save

import mutate
from distillnet.atlas import open_atlas
from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.files.manifest import MANIFEST
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import open_images
from distillnet.job.front import front_folders, take_from_front
from distillnet.job.options import Options
from distillnet.job.provenance import read_provenance
from distillnet.job.runs import open_run
from distillnet.missions.collecting import Pass, collect_model
from distillnet.missions.files import MissionAtlas, open_mission_atlas
from distillnet.missions.merging import merge
from distillnet.missions.network import model_of
from distillnet.missions.noise import NOISE, add_noisy, read_noise
from distillnet.missions.parts import DIGEST, INDEX, digest_of, parts_kept, read_part
from distillnet.missions.quoting import quote
from distillnet.missions.records import records_of
from distillnet.missions.retargeting import retarget
from distillnet.models import Model
from distillnet.pages.subject import read_bitmaps
from distillnet.refit.teacher import refittable
from distillnet.search import Budget
from kinds import Reader
from results import HOW, empty, mended, one_of, run_command

__all__ = ["ATLASES", "with_atlases"]

_NET = """
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.ReLU()
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(100, 4))
"""
_ATLAS, _MORE, _PARTS, _NOISY = "missions", "more", "parts", "noisy"
_SAMPLES = 30
_MISSION = Mission((0, 2), ("0", "2"))


def with_atlases(folder: Path) -> Path:
    """Two atlases of a small network, of different images; and a pass that was interrupted."""
    if (folder / _PARTS).exists():
        return folder
    net = folder / "deep.py"
    net.write_text(_NET)
    shutil.copytree(folder / "photos", folder / "others")
    for path in (folder / "others").glob("*/*.png"):
        path.write_bytes(path.read_bytes() + b"another")  # behind the picture's end
    for name, within in ((_ATLAS, "photos"), (_MORE, "others")):
        words = [f"{net}:net", *HOW, "--data", str(folder / within), "--samples", str(_SAMPLES)]
        run_command("collect", *words, "--classes", "0,1,2", "--out", str(folder / name))
    words = [f"{net}:net", *HOW, "--data", str(folder / "photos"), "--noise", "100"]
    run_command("collect", *words, "--classes", "0,1,2", "--out", str(folder / _NOISY))
    model = _network(folder)[0]
    out = folder / _PARTS
    (out / "new").mkdir(parents=True)
    images = open_images(folder / "photos", model.classes).train.select([1])
    collect_model(model, images, out / "new", out, Pass(_SAMPLES), Options())
    return folder


@cache
def _network(folder: Path) -> tuple[Model, Graph, Channels]:
    model = model_of(open_mission_atlas(folder / _ATLAS), f"{folder / 'deep.py'}:net")
    graph = capture_model(model)
    return model, graph, analyse(graph)


# What is read --------------------------------------------------------------------------------


def _read(path: Path) -> MissionAtlas:
    """All that any command reads of an atlas, but for that of its network."""
    atlas = open_mission_atlas(path)
    for index in atlas.samples:
        atlas.tensors(index)
        atlas.images(index)
        for site in atlas.statistics.sites:
            atlas.statistics.heat(site, [index])
            atlas.statistics.variance(site, [index])
    return atlas


def _read_with_network(path: Path) -> MissionAtlas:
    model, graph, _ = _network(path.parent)
    atlas = _read(path)
    atlas.check_network(graph, model.weights_sha256, model.preprocessing)
    for record in records_of(graph):
        atlas.rows(record, list(atlas.samples))
    for layer in refittable(graph):
        atlas.need(layer.name, layer.shape[0], list(atlas.samples))
    return atlas


def _mission(path: Path) -> None:
    """As ``retarget`` and ``plan``; the atlas may name other layers, so all of it is checked."""
    atlas, options = _read(path), Options(budget=Budget(target_macs=1.5))
    model = _network(path.parent)[0]
    retarget(atlas, model, _MISSION, options)
    quote(atlas, model, _MISSION, options)


def _merged(path: Path) -> None:
    """What is merged can be read: nothing is written that nobody takes."""
    out = empty(path.parent / "merged")
    merge([path.parent / _MORE, path], out)
    _read(out)


def _added(path: Path) -> None:
    """Sums with noise: what they add up to can be read, and by ``distill``."""
    out = empty(path.parent / "added")
    atlas = add_noisy([path, path], out)
    assert read_noise(out) is not None
    for site in atlas.sites:
        open_atlas(out).heat(site, sorted(atlas.counts))


def _of_atlas(
    name: str,
    damage: mutate.Mutator,
    read: Callable[[Path], object] = _read_with_network,
    cost: float = 1e-2,
    where: str = _ATLAS,
) -> Reader:
    return Reader(
        lambda folder: one_of(f"{where}/{name}", folder),
        damage,
        partial(mended, where, name, read),
        cost,
    )


# What is not as it was listed -----------------------------------------------------------------

_END = b"\n\n"  # of a file's name, as these inputs have it


def _files(where: str, folder: Path) -> list[bytes]:
    listed = json.loads((folder / where / MANIFEST).read_bytes())["files"]
    return [
        name.encode() + _END + (folder / where / name).read_bytes()
        for name in listed
        if name != "times.json"  # for people; no command reads it
    ]


def _read_run(path: Path) -> None:
    run = open_run(path)
    read_provenance(path)
    for folder in (path, *(path / "front").glob("*")):
        read_bitmaps(run, folder)
    for _, result in front_folders(run):
        budget = Budget(100.0, target_macs=result["mac_ratio"])
        take_from_front(run, budget, empty(path.parent / "taken"))
    assert run.front


def _in_file(data: bytes, draw: Random) -> bytes:
    name, end, content = data.partition(_END)
    return name + end + mutate.in_bytes(content, draw)


def _as_listed(where: str, read: Callable[[Path], object], data: bytes, folder: Path) -> object:
    """A file that is not the one that was written is never taken, whatever it holds."""
    start, _, content = data.partition(_END)
    if data in (files := _files(where, folder)):
        return read(folder / where)
    known = [file.partition(_END)[0] for file in files]
    if start not in known:
        raise InputError("no file of the result")
    mended(where, start.decode(), read, content, folder, as_listed=True)
    raise AssertionError(f"{start.decode()} was changed and taken")


# What an interrupted pass leaves ----------------------------------------------------------------


def _unfinished(name: str, folder: Path) -> list[bytes]:
    return one_of(f"{_PARTS}/unfinished/{name}", folder)


def _read_index(data: bytes, folder: Path) -> object:
    path = folder / _PARTS / "unfinished" / INDEX
    settings = json.loads(_unfinished(INDEX, folder)[0])["settings"]
    before = path.read_bytes()
    try:
        path.write_bytes(data)
        return parts_kept(path.parent, settings)
    finally:
        path.write_bytes(before)


def _read_part(data: bytes, folder: Path) -> object:
    path = folder / "part.safetensors"
    path.write_bytes(data)
    _, graph, channels = _network(folder)
    part = read_part(path, graph, channels)
    if part is None:
        raise InputError("it is made anew")
    part.add(part, _SAMPLES)
    return part.moments.tensors()


def _parts(folder: Path) -> list[bytes]:
    return _unfinished("1-0.safetensors", folder)


def _sealed(data: bytes, draw: Random) -> bytes:
    """Damage by somebody who knows how parts are sealed."""
    damaged = mutate.in_tensors(data, draw)
    try:
        tensors = load(damaged)
    except Exception:  # noqa: BLE001 - no safetensors file any more
        return damaged
    tensors.pop(DIGEST, None)
    return save({**tensors, DIGEST: digest_of(tensors)})


ATLASES: Mapping[str, Reader] = {
    "atlas of missions": _of_atlas("atlas.json", mutate.in_json),
    "evidence.json": _of_atlas("evidence.json", mutate.in_json),
    "its manifest": _of_atlas(MANIFEST, mutate.in_json),
    "moments": _of_atlas("0.safetensors", mutate.in_tensors),
    "evidence": _of_atlas("0.evidence.safetensors", mutate.in_tensors),
    "merged evidence": _of_atlas("2.evidence.safetensors", mutate.in_tensors, _merged, 2e-2),
    "missions": _of_atlas("2.evidence.safetensors", mutate.in_tensors, _mission, 0.2),
    "collect.json": Reader(partial(_unfinished, INDEX), mutate.in_json, _read_index),
    "part of a pass": Reader(_parts, mutate.in_tensors, _read_part, 5e-3),
    "sealed part": Reader(_parts, _sealed, _read_part, 5e-3, by_bytes=0),
    "noise": _of_atlas(NOISE, mutate.in_json, _added, 2e-2, _NOISY),
    "noisy atlas": _of_atlas("atlas.json", mutate.in_json, _added, 2e-2, _NOISY),
    "noisy sums": _of_atlas("0.safetensors", mutate.in_tensors, _added, 2e-2, _NOISY),
    "atlas as listed": Reader(
        partial(_files, _ATLAS), _in_file, partial(_as_listed, _ATLAS, _read), 1e-2, 0.1
    ),
    "run as listed": Reader(
        partial(_files, "run"), _in_file, partial(_as_listed, "run", _read_run), 1e-2, 0.1
    ),
}
