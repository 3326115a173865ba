"""A run knows its images again by their content, wherever they are, and never by their paths."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from distillnet.classes import Mission, numbered_table
from distillnet.errors import ImageError, InputError
from distillnet.files.manifest import seal
from distillnet.images import ImageSet, open_images
from distillnet.job.partition import Images, split_images
from distillnet.job.provenance import (
    PROVENANCE,
    held_out,
    provenance_of,
    read_provenance,
    write_provenance,
)

TABLE, MISSION = numbered_table(4), Mission((2, 0), ("2", "0"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in range(3):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True)
        for i in range(10):
            Image.new("L", (4, 4), 20 * i + label).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> tuple[Path, Images]:
    """A folder with the notes of a run, and the images that they are of."""
    images = split_images(open_images(photos, TABLE, MISSION.indices))
    (tmp_path / "run").mkdir()
    write_provenance(provenance_of(images), tmp_path / "run")
    seal(tmp_path / "run", [PROVENANCE])
    return tmp_path / "run", images


def test_what_made_a_network_is_known_again_after_a_move(
    run: tuple[Path, Images], photos: Path
) -> None:
    folder, images = run
    known = read_provenance(folder)
    assert known is not None
    assert known.seen(images.val) == 0
    assert known.seen(images.statistics) == len(images.statistics)
    assert str(photos).encode() not in (folder / PROVENANCE).read_bytes()
    for i, path in enumerate(sorted(photos.glob("0/*"))):
        path.rename(photos / "0" / f"other name {i}.png")
    shutil.make_archive(str(photos / "train"), "zip", photos)
    for place in (photos, photos.parent / "packed"):
        place.mkdir(exist_ok=True)
        if place != photos:
            (photos / "train.zip").rename(place / "train.zip")
        everything = open_images(place, TABLE, MISSION.indices).train
        assert known.seen(everything) == len(images.statistics) + len(images.search) == 16


def test_held_out_images_are_found_and_those_that_are_gone_counted(
    run: tuple[Path, Images], photos: Path
) -> None:
    folder, images = run
    found, gone = held_out(folder, str(photos), TABLE, MISSION)
    assert (found, gone) == (images.val, 0)
    first, *others = images.val.refs
    first.path.write_bytes(b"another picture")
    found, gone = held_out(folder, str(photos), TABLE, MISSION)
    assert (found, gone) == (ImageSet(tuple(others)), 1)
    for ref in others:
        ref.path.rename(ref.path.with_suffix(".txt"))
    with pytest.raises(ImageError, match=r"none of the 4 images .* --data"):
        held_out(folder, str(photos), TABLE, MISSION)
    with pytest.raises(ImageError, match=r"are not where they were; .* --data"):
        held_out(folder, str(photos / "nowhere"), TABLE, MISSION)


def test_a_run_without_notes_or_with_damaged_ones(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None
    with pytest.raises(ImageError, match="not recorded there; pass images with --data"):
        held_out(tmp_path, str(tmp_path), TABLE, MISSION)
    digests = torch.zeros(2, 16, dtype=torch.uint8)
    whole = dict.fromkeys(("statistics", "search", "val"), digests)
    for damaged in ({}, whole | {"val": digests[0].clone()}, whole | {"search": digests.float()}):
        save_file({k: v.clone() for k, v in damaged.items()}, tmp_path / PROVENANCE)
        seal(tmp_path, [PROVENANCE])
        with pytest.raises(InputError, match="uint8"):
            read_provenance(tmp_path)
    (tmp_path / PROVENANCE).write_bytes(b"cut")
    with pytest.raises(InputError, match="not the file that was written"):
        read_provenance(tmp_path)
    seal(tmp_path, [PROVENANCE])
    with pytest.raises(InputError, match="cannot be read"):
        read_provenance(tmp_path)
