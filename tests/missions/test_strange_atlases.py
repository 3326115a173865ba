"""Atlases from anybody: numbers that no network gives, and parts that are not as they were kept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlases import atlas_of, model, pictures
from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.files.manifest import read_manifest, seal
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import open_images
from distillnet.job.options import Options
from distillnet.missions.collecting import Pass, collect_model
from distillnet.missions.files import evidence_file, open_mission_atlas
from distillnet.missions.merging import merge
from distillnet.missions.parts import INDEX, digest_of, parts_kept, read_part
from distillnet.missions.retargeting import retarget
from distillnet.search import Budget

MISSION = Mission((0, 2), ("0", "2"))
OPTIONS = Options(budget=Budget(target_macs=1.5))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    atlas_of(pictures(home / "photos", 4), home / "atlas")
    atlas_of(pictures(home / "others", 4, seed=1), home / "other")
    return home


@pytest.fixture
def atlas(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "atlas", tmp_path / "atlas")


def _change(atlas: Path, change: Callable[[dict[str, Tensor]], object], index: int = 2) -> None:
    """As somebody would who wants it to be believed."""
    path = atlas / evidence_file(index)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    seal(atlas, read_manifest(atlas).files)


def _all(kind: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.startswith(kind) and tensor.is_floating_point():
                tensors[name] = torch.full_like(tensor, value)

    return change


def _indefinite(tensors: dict[str, Tensor]) -> None:
    """No sums of squares: what lies beside the diagonal is larger than what is on it."""
    for name in [n for n in tensors if n.startswith("need/")]:
        size = int((2 * len(tensors[name])) ** 0.5)
        rows, columns = torch.triu_indices(size, size)
        tensors[name] = torch.where(rows == columns, 1.0, 9.0)


NUMBERS = {
    "values beyond float32 once squared": (_all("patch", 3e38), "'patch/"),
    "outputs": (_all("output", 1e30), "'output/"),
    "scales below 0": (_all("value", -1.0), "'value/"),
    "NaN": (_all("need", float("nan")), "'need/"),
    "squares below 0": (_all("need", -1.0), "sums of squares below 0"),
    "needs beyond all bounds": (_all("need", 3e38), "'need/"),
    "no covariance": (_indefinite, "nothing can be fitted to"),
}


@pytest.mark.parametrize("wrong", NUMBERS)
def test_numbers_that_no_network_gives(wrong: str, atlas: Path) -> None:
    change, message = NUMBERS[wrong]
    _change(atlas, change)
    with pytest.raises(InputError, match=message) as refused:
        retarget(open_mission_atlas(atlas), model(), MISSION, OPTIONS)
    assert "collect it again" in str(refused.value)


SHAPES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "no half of a matrix": lambda t: t.update({"need/0": t["need/0"][:-1]}),
    "a need of more layers": lambda t: t.update({"need/x": torch.ones(3)}),
    "a need of fewer": lambda t: t.pop("need/0"),
    "no scale": lambda t: t.pop("output/0#scale"),
    "a scale alone": lambda t: t.pop("output/0"),
    "keys of floats": lambda t: t.update({"keys": t["keys"].float()}),
    "keys in another order": lambda t: t.update({"keys": t["keys"].flip(0)}),
    "other columns": lambda t: t.update({"output/0": t["output/0"][:, 1:].contiguous()}),
    "one number": lambda t: t.update({"keys": torch.tensor(1)}),
    "images of others": lambda t: t.update({"images": t["images"][1:]}),
    "a name of nothing": lambda t: t.update({"pixels": t["images"].clone()}),
}


@pytest.mark.parametrize("wrong", SHAPES)
def test_what_does_not_fit_is_not_merged(wrong: str, atlas: Path, made: Path) -> None:
    _change(atlas, SHAPES[wrong])
    (atlas.parent / "out").mkdir()
    with pytest.raises(InputError, match=r"[Cc]ollect it again"):
        merge([made / "other", atlas], atlas.parent / "out")


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A part of a pass, and what it is of."""
    network = model()
    images = open_images(made / "photos", network.classes).train.select([1])
    (tmp_path / "new").mkdir()
    collect_model(network, images, tmp_path / "new", tmp_path, Pass(), Options())
    return tmp_path / "unfinished" / "1-0.safetensors"


def test_a_part_that_is_not_as_it_was_kept_is_made_anew(kept: Path) -> None:
    graph = capture_model(model())
    whole = load_file(kept)
    assert read_part(kept, graph, analyse(graph)) is not None
    del whole["digest"]
    site = next(name for name in whole if name.startswith("mean/"))
    changes: dict[str, Tensor | None] = {
        "keys": None,
        "n": torch.tensor(7),
        "need/0": torch.full_like(whole["need/0"], float("inf")),
        "seen": whole["seen"][1:],
        "rows/output/0": whole["rows/output/0"].float(),
        site: whole[site][1:],
        "more": torch.ones(1),
    }
    for name, tensor in changes.items():
        told = {n: t for n, t in {**whole, name: tensor}.items() if t is not None}
        save_file({**told, "digest": digest_of(told)}, kept)
        assert read_part(kept, graph, analyse(graph)) is None, name
    save_file({**whole, "digest": digest_of({**whole, "n": torch.tensor(9)})}, kept)
    assert read_part(kept, graph, analyse(graph)) is None


def test_an_index_of_parts_is_read_like_any_stranger_s(kept: Path) -> None:
    path = kept.parent / INDEX
    index = json.loads(path.read_text())
    assert parts_kept(kept.parent, index["settings"]) == 1
    for text in (
        '{"format": 1, "parts": 1, "settings": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        json.dumps(index | {"parts": 10**9}),
        json.dumps(index | {"more": 1}),
        "[]",
    ):
        path.write_text(text)
        with pytest.raises(InputError, match="leave out --resume"):
            parts_kept(kept.parent, index["settings"])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="a pipe, expected a regular file"):
        parts_kept(kept.parent, index["settings"])
