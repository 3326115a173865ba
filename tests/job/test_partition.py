"""Statistics, search and report share no image, whatever the images are called."""

from pathlib import Path

import pytest
from PIL import Image

from distillnet.atlas import Atlas
from distillnet.classes import numbered_table
from distillnet.errors import ImageError, InputError
from distillnet.images import Folders, ImageSet, open_images
from distillnet.images.keys import key_digest
from distillnet.job.partition import split_images

TABLE = numbered_table(2)
EACH = 10  # images of a class


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in "01":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(EACH):
            Image.new("L", (4, 4)).save(tmp_path / "photos" / label / f"{i}.png")
    return tmp_path / "photos"


def _atlas_of(images: ImageSet) -> Atlas:
    keys = frozenset(map(key_digest, images.refs))
    return Atlas(Path(), "m", "s", (4, 4), (), {0: 1, 1: 1}, keys)


def test_without_more_a_fifth_is_val_and_half_of_the_rest_search(folder: Path) -> None:
    parts = split_images(open_images(folder, TABLE))
    counts = [part.counts() for part in (parts.statistics, parts.search, parts.val)]
    assert counts == [{0: 4, 1: 4}, {0: 4, 1: 4}, {0: 2, 1: 2}]
    refs = [*parts.statistics.refs, *parts.search.refs, *parts.val.refs]
    assert set(refs) == set(open_images(folder, TABLE).train.refs)
    assert split_images(open_images(folder, TABLE)) == parts
    assert split_images(open_images(folder, TABLE), seed=1) != parts


@pytest.mark.parametrize("role", ["val", "search"])
@pytest.mark.parametrize("spelling", ["relative", "absolute", "link"])
def test_a_shared_image_is_found_under_any_name(
    role: str, spelling: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "link").symlink_to(folder)
    path = {"relative": Path("photos"), "absolute": folder, "link": Path("link")}[spelling]
    same = open_images(path, TABLE).train
    with pytest.raises(InputError, match=rf"images are in both the \w+ and the {role}|{role} and"):
        split_images(open_images("photos", TABLE), **{role: same})


def test_with_an_atlas_the_search_stays_off_its_images(folder: Path) -> None:
    found = open_images(folder, TABLE)
    val = ImageSet(tuple(ref for ref in found.train.refs if ref.path.stem in "01"))
    rest = ImageSet(tuple(ref for ref in found.train.refs if ref not in val.refs))
    seen = ImageSet(tuple(ref for ref in rest.refs if ref.path.stem in "2345"))
    parts = split_images(Folders(rest, val), atlas=_atlas_of(seen))
    assert set(parts.statistics.refs) == set(seen.refs)
    assert set(parts.search.refs) == set(rest.refs) - set(seen.refs)
    with pytest.raises(InputError, match="both the statistics and the val"):
        split_images(Folders(rest, val), atlas=_atlas_of(val))
    with pytest.raises(ImageError, match="none to search on"):
        split_images(Folders(rest, val), atlas=_atlas_of(rest))


def test_with_an_atlas_all_else_stays_off_its_images(folder: Path) -> None:
    everything = open_images(folder, TABLE)
    seen = ImageSet(tuple(ref for ref in everything.train.refs if ref.path.stem in "012345"))
    parts = split_images(everything, atlas=_atlas_of(seen))
    assert set(parts.statistics.refs) == set(seen.refs)
    assert parts.search.counts() == {0: 3, 1: 3}
    assert parts.val.counts() == {0: 1, 1: 1}
    assert not {*parts.search.refs, *parts.val.refs} & set(seen.refs)
    with pytest.raises(ImageError, match="none to search on"):
        split_images(everything, atlas=_atlas_of(everything.train))


def test_a_part_whose_few_images_are_all_damaged_is_refused_at_once(folder: Path) -> None:
    images = split_images(open_images(folder, TABLE))
    first, second = (ref.path for ref in images.val.refs if ref.label == 1)
    first.write_bytes(b"")
    assert split_images(open_images(folder, TABLE)) == images  # the other is left
    second.write_bytes(b"")
    with pytest.raises(ImageError, match="no val image of class 1 can be read"):
        split_images(open_images(folder, TABLE))


def test_a_class_with_too_few_images_is_named(folder: Path) -> None:
    for path in sorted((folder / "1").iterdir())[2:]:
        path.unlink()
    with pytest.raises(ImageError, match="class 1 has 2 images"):
        split_images(open_images(folder, TABLE))
