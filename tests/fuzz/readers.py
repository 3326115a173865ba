"""Every reader of files that may come from anybody: seeds, how they are damaged, how they are read.

A reader may do what it promises, or raise DistillnetError; all else is a finding.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import mutate
from distillnet.atlas import open_atlas
from distillnet.classes import parse_mission, read_class_table
from distillnet.cut.bitmaps import pack, unpack
from distillnet.deploy.c_folder import _About
from distillnet.errors import DistillnetError, InputError
from distillnet.files.documents import read_document
from distillnet.files.manifest import MANIFEST, read_manifest, seal
from distillnet.files.tensors import read_tensors
from distillnet.images import ImageRef, open_images, read_image
from distillnet.images.files import OpenFiles, read_idx
from distillnet.job.front import take_from_front
from distillnet.job.runs import open_run
from distillnet.missions.packages import (
    new_keys,
    open_package,
    pack_mission,
    read_base,
    shared_weights,
)
from distillnet.missions.packages.package import decode, graph_of, keep_of
from distillnet.missions.packages.signing import MAGIC
from distillnet.missions.unknown.of_runs import network_of
from distillnet.missions.unknown.rule import RULE, Rule, read_rule, write_rule
from distillnet.models.programs import load_program
from distillnet.models.weights import read_weights
from distillnet.search import Budget

__all__ = ["READERS", "Reader", "allowed", "fuzz_folder"]

allowed = DistillnetError
_MAX_PIXELS = 2_000_000
_SIDE = 16
_NET = f"""
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    head = nn.Linear(6 * {_SIDE - 2} ** 2, 4)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), head)
"""


@dataclass(frozen=True)
class Reader:
    """A reader of bytes.

    Attributes:
        seeds: what is right, made in a folder.
        damage: seeds in, something else out.
        read: reads bytes by way of a folder that belongs to it alone.
        cost: of one execution, roughly, in seconds.
    """

    seeds: Callable[[Path], list[bytes]]
    damage: mutate.Mutator
    read: Callable[[bytes, Path], object]
    cost: float = 1e-3


def fuzz_folder(parent: Path) -> Path:
    """A folder with a run and an atlas of a tiny network, which readers damage and mend."""
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
    how = ["--input-size", str(_SIDE), "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    words = [f"{folder / 'net.py'}:net", *how, "--data", str(folder / "photos")]
    _command("distill", *words, "--classes", "0,1,2", "--out", str(folder / "run"))
    return folder


def _command(*words: str) -> None:
    from distillnet.cli import main

    before, sys.argv = sys.argv, ["distillnet", *words]
    try:
        main()
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        sys.argv = before


def _file(name: str, read: Callable[[Path], object], data: bytes, folder: Path) -> object:
    path = folder / name
    path.write_bytes(data)
    return read(path)


# Images ---------------------------------------------------------------------------------------

_FORMATS: Mapping[str, Mapping[str, object]] = {
    "JPEG": {}, "PNG": {}, "GIF": {}, "BMP": {}, "TIFF": {}, "WEBP": {}, "PPM": {},
}  # fmt: skip


def _images(folder: Path) -> list[bytes]:
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (13, 17, 4), dtype=np.uint8)
    seeds = []
    for name in _FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"):
            image = Image.fromarray(pixels)
            for options in ({}, {"progressive": True}, {"compression": "tiff_lzw"}):
                out = io.BytesIO()
                try:
                    changed = (
                        Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
                        if mode == "I;16"
                        else image.convert(mode)
                    )
                    changed.save(out, name, **options)
                except (OSError, ValueError, KeyError):
                    continue
                if out.getvalue() not in seeds:
                    seeds.append(out.getvalue())
    return seeds


def _read_image(data: bytes, folder: Path) -> object:
    return _file(
        "image", lambda path: read_image(ImageRef(path, 0), None, _MAX_PIXELS), data, folder
    )


def _zips(folder: Path) -> list[bytes]:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, data in enumerate(_images(folder)[:4]):
            archive.writestr(f"ant/{i}.png", data)
            archive.writestr(f"bee/{i}.png", data)
    return [out.getvalue()]


def _read_zip(data: bytes, folder: Path) -> object:
    from distillnet.classes import numbered_table

    (folder / "zipped").mkdir(exist_ok=True)
    (folder / "zipped" / "train.zip").write_bytes(data)
    images = open_images(folder / "zipped", numbered_table(2, ["ant", "bee"])).train
    files = OpenFiles()
    try:
        for ref in images.refs[:8]:
            _quietly(lambda ref=ref: read_image(ref, files, _MAX_PIXELS))
    finally:
        files.close()
    return None


def _quietly(call: Callable[[], object]) -> None:
    with contextlib.suppress(InputError):
        call()


def _idx(folder: Path) -> list[bytes]:
    return [b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(8), b"\0\0\x08\x01\0\0\0\x03\1\2\3"]


# Networks -------------------------------------------------------------------------------------


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.arange(54.0).reshape(2, 3, 3, 3),
        "conv.bias": torch.zeros(2, dtype=torch.float16),
        "steps": torch.tensor(3),
        "flags": torch.tensor([True, False]),
    }


def _torch_files(folder: Path) -> list[bytes]:
    seeds = []
    for value in (_tensors(), {"state_dict": _tensors(), "epoch": 3}):
        for new in (True, False):
            out = io.BytesIO()
            torch.save(value, out, _use_new_zipfile_serialization=new)
            seeds.append(out.getvalue())
    return seeds


def _programmes(folder: Path) -> list[bytes]:
    return [(folder / "run" / "model.pt2").read_bytes()]


# Runs and atlases -----------------------------------------------------------------------------


def _one_of(name: str, folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes()]


def _mended(
    where: str, name: str, read: Callable[[Path], object], data: bytes, folder: Path
) -> object:
    """Read a result of which one file is another, and listed as if it had always been so."""
    result = folder / where
    path, manifest = result / name, result / MANIFEST
    before, listed = path.read_bytes(), manifest.read_bytes()
    try:
        path.write_bytes(data)
        if name != MANIFEST:
            seal(result, read_manifest(result).files)
        return read(result)
    finally:
        path.write_bytes(before)
        manifest.write_bytes(listed)


def _read_atlas(path: Path) -> None:
    atlas = open_atlas(path)
    for site in atlas.sites:
        atlas.heat(site, list(atlas.counts))
        atlas.variance(site, list(atlas.counts))


def _take(path: Path) -> None:
    taken = path.parent / "taken"
    shutil.rmtree(taken, ignore_errors=True)
    taken.mkdir()
    take_from_front(open_run(path), Budget(max_loss_pp=100.0), taken)
    open_run(taken)


def _run_reader(name: str, read: Callable[[Path], object], damage: mutate.Mutator) -> Reader:
    return Reader(
        partial(_one_of, f"run/{name}"), damage, partial(_mended, "run", name, read), 3e-3
    )


def _atlas_reader(name: str, damage: mutate.Mutator) -> Reader:
    return Reader(
        partial(_one_of, f"run/atlas/{name}"),
        damage,
        partial(_mended, "run/atlas", name, _read_atlas),
        3e-3,
    )


def _bitmaps(folder: Path) -> list[bytes]:
    maps = {"a": torch.rand(3, 5, 5) > 0.5, "b": torch.rand(7) > 0.5}
    return [save(pack(maps))]


def _table(folder: Path) -> list[bytes]:
    return [
        b"index\tname\talias\n0\tcrane\tbird\n1\tjay\tbird\n2\tmug\tcup\n3\tn0001\t\xc3\xa9\n",
        "\ufeffname\tindex\nx\t3\ny\t2\nz\t1\n\t0\n".encode(),
    ]


def _read_table(path: Path) -> None:
    table = read_class_table(path, 4)
    for index in range(4):
        table.spellings(index)
    parse_mission([0, 3], table)


def _rules(folder: Path) -> list[bytes]:
    network, path = folder / "run" / "model.pt2", folder / "run" / RULE
    write_rule(Rule(1.5, (0.25, -1.0, 3.0), 0.5), network, path, {"n": 3, "auroc": None})
    return [path.read_bytes()]


def _read_rule(data: bytes, folder: Path) -> object:
    (folder / "run" / RULE).write_bytes(data)
    return read_rule(folder / "run")


def _about(folder: Path) -> list[bytes]:
    about = {
        "format": 1, "prefix": "model", "shape": [3, 16, 16], "missions": {"run": ["0", "1"]},
        "provenance": {"producer": "distillnet"},
    }  # fmt: skip
    return [json.dumps(about).encode()]


# Packages --------------------------------------------------------------------------------------


def _keys(folder: Path) -> tuple[Path, Path]:
    secret, public = folder / "key", folder / "key.pub"
    if not secret.exists():
        for path, data in zip((secret, public), new_keys(), strict=True):
            path.write_bytes(data)
    return secret, public


def _package(folder: Path) -> list[bytes]:
    """A mission of a network that nobody trained, bitmaps and all."""
    path, secret = folder / "seed.mission", _keys(folder)[0]
    if not path.exists():
        run = open_run(folder / "run")
        graph = network_of(run)
        base = shared_weights("net.py:net", graph, run.weights_sha256, folder / "base.safetensors")
        name = next(n.name for n in graph.nodes if n.op == "conv")
        keep = {name: torch.ones(graph[name].shape, dtype=torch.bool)}
        pack_mission(
            run, graph, base, path, secret, name="seed", serial=1, keep=keep, unknown=False
        )
    return [path.read_bytes()]


def _bodies(folder: Path) -> list[bytes]:
    return [data[len(MAGIC) : -64] for data in _package(folder)]


def _read_package(data: bytes, folder: Path) -> object:
    """As a device does; what nobody signed must never be taken."""
    public = _keys(folder)[1]
    path = folder / "damaged.mission"
    path.write_bytes(data)
    package = open_package(path, [public])
    if [data] != _package(folder):
        raise AssertionError("a package that was changed was accepted")
    return graph_of(package.contents, read_base(folder / "base.safetensors"), "it")


def _read_body(data: bytes, folder: Path) -> object:
    """A body that whoever holds the key has damaged: refused or read, but never a crash."""
    contents = decode(data, "it")
    keep_of(contents)
    return graph_of(contents, _base_of(folder), "it")


@cache
def _base_of(folder: Path) -> object:
    _package(folder)
    return read_base(folder / "base.safetensors")


READERS: Mapping[str, Reader] = {
    "image": Reader(_images, mutate.in_bytes, _read_image),
    "zip of images": Reader(_zips, mutate.in_zip, _read_zip, 5e-3),
    "IDX": Reader(_idx, mutate.in_bytes, partial(_file, "idx", read_idx)),
    "class table": Reader(_table, mutate.in_text, partial(_file, "table", _read_table)),
    "safetensors": Reader(
        lambda folder: [save(_tensors())],
        mutate.in_safetensors,
        partial(_file, "weights.safetensors", read_weights),
    ),
    "torch weights": Reader(
        _torch_files,
        partial(mutate.in_zip, within=mutate.in_bytes),
        partial(_file, "w.pt", read_weights),
    ),
    "programme": Reader(
        _programmes, mutate.in_zip, partial(_file, "net.pt2", load_program), 5e-2
    ),
    "mission.json": _run_reader("mission.json", open_run, mutate.in_json),
    "result.json": _run_reader("result.json", open_run, mutate.in_json),
    "manifest.json": _run_reader("manifest.json", open_run, mutate.in_json),
    "front": _run_reader("front/00/result.json", _take, mutate.in_json),
    "bitmaps": Reader(
        _bitmaps,
        mutate.in_safetensors,
        partial(_file, "bits.safetensors", lambda path: unpack(load_bitmaps(path))),
    ),
    "atlas.json": _atlas_reader("atlas.json", mutate.in_json),
    "statistics": _atlas_reader("0.safetensors", mutate.in_safetensors),
    "package": Reader(_package, mutate.in_bytes, _read_package),
    "body of a package": Reader(_bodies, mutate.in_bytes, _read_body, 1e-2),
    "shared weights": Reader(
        lambda folder: _package(folder) and _one_of("base.safetensors", folder),
        mutate.in_safetensors,
        partial(_file, "base", read_base),
        1e-2,
    ),
    "unknown.json": Reader(_rules, mutate.in_json, _read_rule),
    "about.json": Reader(
        _about,
        mutate.in_json,
        partial(_file, "about.json", lambda p: read_document(p, _About, "x", format_=1)),
    ),
}  # fmt: skip


def load_bitmaps(path: Path) -> dict[str, torch.Tensor]:
    """As ``deploy.c_missions`` does."""
    from safetensors import SafetensorError

    try:
        return read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise InputError(str(error)) from error
