"""Every reader of files that may come from anybody: seeds, how they are damaged, how they are read.

A reader may do what it promises, or raise DistillnetError; all else is a finding.
"""

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import mutate
from distillnet.classes import parse_mission, read_class_table
from distillnet.cut.bitmaps import pack, unpack
from distillnet.deploy.c_folder import _About
from distillnet.errors import DistillnetError, InputError
from distillnet.files.documents import read_document
from distillnet.files.tensors import read_tensors
from distillnet.images import ImageRef, open_images, read_image
from distillnet.images.files import OpenFiles, read_idx
from distillnet.models.packed import Packed, Plain, Shared, read_packed, write_packed
from distillnet.models.programs import load_program
from distillnet.models.weights import read_weights
from graphs import documents, in_graph, read_graph
from kinds import Reader
from mission_atlases import ATLASES, with_atlases
from packages import PACKAGES
from results import RESULTS, run_folder

__all__ = ["READERS", "Reader", "allowed", "fuzz_folder"]

allowed = DistillnetError
_MAX_PIXELS = 2_000_000


def fuzz_folder(parent: Path) -> Path:
    """A folder with results of all kinds, which readers damage and mend."""
    return with_atlases(run_folder(parent))


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


# Files that stand alone --------------------------------------------------------------------------


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


def _about(folder: Path) -> list[bytes]:
    about = {
        "format": 1, "prefix": "model", "shape": [3, 16, 16], "missions": {"run": ["0", "1"]},
        "provenance": {"producer": "distillnet"},
    }  # fmt: skip
    return [json.dumps(about).encode()]


def _packed(folder: Path) -> list[bytes]:
    draw, path = np.random.default_rng(0), folder / "seed.dnp"
    levels = draw.laplace(0, 2, (20, 30)).round().astype(np.int32)
    steps = [draw.integers(-9, 9, n).astype(np.int8) for n in levels.shape]
    shared = Shared((20, 30), levels, *steps, np.zeros(0, np.float32))
    tensors = {"w": shared, "b": Plain(torch.ones(20))}
    write_packed(Packed("weights", tensors, {"a": b"{}"}, {}), path)
    return [path.read_bytes()]


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
        _programmes, mutate.in_zip, partial(_file, "net.pt2", load_program), 5e-3, 0.1
    ),
    "graph": Reader(documents, in_graph, read_graph, 7e-3, 0.1),
    "packed": Reader(_packed, mutate.in_bytes, partial(_file, "net.dnp", read_packed), 5e-3),
    "bitmaps": Reader(
        _bitmaps,
        mutate.in_safetensors,
        partial(_file, "bits.safetensors", lambda path: unpack(load_bitmaps(path))),
    ),
    "about.json": Reader(
        _about,
        mutate.in_json,
        partial(_file, "about.json", lambda p: read_document(p, _About, "x", format_=1)),
    ),
    **RESULTS,
    **ATLASES,
    **PACKAGES,
}  # fmt: skip


def load_bitmaps(path: Path) -> dict[str, torch.Tensor]:
    """As ``deploy.c_missions`` does."""
    from safetensors import SafetensorError

    try:
        return read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise InputError(str(error)) from error
