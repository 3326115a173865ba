"""Large images are decoded once for all input sizes, and come out as if each were read anew."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillnet.images import Album, ImageRef, ImageSet, batches, load_all
from distillnet.images.preprocessing import Preprocessing

HOW = Preprocessing((32, 24), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), channels="BGR")
CROP = Preprocessing((20, 20), (0.5,), (0.2,), resize=24, channels="L")
SIZES = [(32, 24), (16, 12), (20, 20)]


@pytest.fixture
def photos(tmp_path: Path) -> ImageSet:
    """Three large ones and a small one."""
    refs = []
    for i, size in enumerate([(500, 450), (450, 500), (20, 30), (600, 400)]):
        shape = (size[1], size[0], 3)
        seen = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(seen).save(path := tmp_path / f"{i}.png")
        refs.append(ImageRef(path, i))
    return ImageSet(tuple(refs))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The labels of the images that are decoded."""
    labels: list[int] = []
    read_image = batches.read_image

    def counted(ref: ImageRef, *args: object) -> Image.Image:
        labels.append(ref.label)
        return read_image(ref, *args)

    monkeypatch.setattr(batches, "read_image", counted)
    return labels


@pytest.mark.parametrize("how", [HOW, CROP])
def test_images_are_the_same_as_read_anew(photos: ImageSet, how: Preprocessing) -> None:
    album = Album(how, SIZES)
    for size in (*SIZES, *SIZES):
        there = how.with_input_size(size)
        anew, kept = load_all(photos, there), load_all(photos, there, album=album)
        assert torch.equal(anew.x_nchw, kept.x_nchw)


def test_large_ones_are_decoded_once(photos: ImageSet, read: list[int]) -> None:
    album = Album(HOW, SIZES)
    for size in SIZES:
        load_all(photos, HOW.with_input_size(size), album=album)
    assert sorted(read) == [0, 1, 2, 2, 2, 3]


def test_a_size_that_was_not_announced_is_read_anew(photos: ImageSet, read: list[int]) -> None:
    album = Album(HOW, SIZES)
    load_all(photos, HOW.with_input_size((8, 8)), album=album)
    load_all(photos, HOW, album=album)
    assert sorted(read) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_no_more_is_kept_than_memory_is_allowed(photos: ImageSet, read: list[int]) -> None:
    each = 3 * (32 * 24 + 16 * 12 + 20 * 20)
    album = Album(HOW, SIZES, most_bytes=2 * each)
    for _ in range(2):
        load_all(photos, HOW, album=album)
    assert len(read) == 4 + 2  # one of the large ones again, and the small one


def test_an_image_that_cannot_be_read_is_told_of_each_time(photos: ImageSet) -> None:
    photos.refs[1].path.write_bytes(b"no image")
    album = Album(HOW, SIZES)
    for _ in range(2):
        loaded = load_all(photos, HOW, album=album, max_unreadable_percent=50)
        assert len(loaded.refs) == 3
        assert len(loaded.unreadable) == 1
