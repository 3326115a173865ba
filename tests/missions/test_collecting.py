"""An atlas does not depend on how the images were portioned out; parts of it add up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atlases import atlas_of, model, pictures
from distillnet.atlas import open_atlas
from distillnet.errors import InputError
from distillnet.images import open_images
from distillnet.job.options import Options
from distillnet.missions.collecting import Collection, Pass, collect_model
from distillnet.missions.files import MissionAtlas, evidence_file, open_mission_atlas
from distillnet.missions.merging import merge


def assert_alike(one: MissionAtlas, two: MissionAtlas) -> None:
    """The same samples of the same images, and sums equal to 1e-6 of their size."""
    assert one.samples == two.samples
    assert one.statistics.counts == two.statistics.counts
    for index in one.samples:
        for site in one.statistics.sites:
            for kind in ("heat", "variance"):
                a, b = (getattr(x.statistics, kind)(site, [index]) for x in (one, two))
                assert float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())
        mine, others = one.tensors(index), two.tensors(index)
        assert mine.keys() == others.keys()
        assert torch.equal(mine["keys"], others["keys"])
        assert torch.equal(mine["images"], others["images"])
        for name, a in mine.items():
            b = others[name]
            if name.startswith("need/"):
                assert float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())
            elif a.dtype == torch.int8:  # a step where rounding went the other way
                assert int((a.int() - b.int()).abs().max()) <= 1


def test_batches_and_order_change_nothing(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 9)
    images = open_images(folder, model().classes).train
    how = Pass(samples=50)
    one = atlas_of(images, tmp_path / "one", how=how)
    # Within a class the images are in another order here.
    turned = replace(
        images, refs=tuple(sorted(images.refs, key=lambda r: (r.label, r.path.name[::-1])))
    )
    two = atlas_of(turned, tmp_path / "two", how=how, batch_size=4)
    assert_alike(one, two)
    assert_alike(open_mission_atlas(tmp_path / "one"), one)


def test_merged_parts_are_the_whole(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 9)
    images = open_images(folder, model().classes).train
    how = Pass(samples=60)
    whole = atlas_of(images, tmp_path / "whole", how=how)
    # Two of other classes, and two halves of the same ones.
    shares = {"03": [r for r in images.refs if r.label in (0, 3)]}
    both = [r for r in images.refs if r.label in (1, 2)]
    shares |= {"even": both[::2], "odd": both[1::2]}
    parts = [
        atlas_of(replace(images, refs=tuple(refs)), tmp_path / name, how=how)
        for name, refs in shares.items()
    ]
    (tmp_path / "merged").mkdir()
    merged = merge(parts, tmp_path / "merged")
    assert_alike(merged, whole)
    assert_alike(open_mission_atlas(tmp_path / "merged"), whole)


def test_what_does_not_belong_together_is_not_merged(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 4)
    one = atlas_of(folder, tmp_path / "one")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="one image"):
        merge([one, one], tmp_path / "out")
    with pytest.raises(InputError, match="two or more"):
        merge([one], tmp_path / "out")
    network = model()
    other = replace(network, preprocessing=replace(network.preprocessing, mean=(0.4, 0.5, 0.5)))
    two = atlas_of(pictures(tmp_path / "others", 4, seed=1), tmp_path / "two", network=other)
    with pytest.raises(InputError, match="another preprocessing"):
        merge([one, two], tmp_path / "out")
    with torch.no_grad():
        next(network.module.parameters()).add_(0.1)
    changed = replace(network, weights_sha256="0" * 64)
    three = atlas_of(tmp_path / "others", tmp_path / "three", network=changed)
    with pytest.raises(InputError, match="another weights"):
        merge([one, three], tmp_path / "out")


class _StopError(Exception):
    pass


def test_what_was_interrupted_goes_on_and_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "photos", 6)
    network = model()
    images = open_images(folder, network.classes).train
    whole = atlas_of(images, tmp_path / "whole")
    read: list[int] = []

    def tell(stage: str, done: int, of: int) -> None:
        read.append(done)
        if done > 14 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise _StopError

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(_StopError):
        collect_model(network, images, out, out, Pass(), Options(), on_progress=tell)
    kept = sorted(path.name for path in (out / "unfinished").glob("*.safetensors"))
    assert kept == ["0-0.safetensors", "1-0.safetensors"]
    with pytest.raises(InputError, match="other samples"):
        collect_model(network, images, out, out, Pass(samples=5, resume=True), Options())
    (out / "unfinished" / kept[1]).write_bytes(b"cut off")  # is done again
    resumed = collect_model(
        network, images, out, out, Pass(resume=True), Options(), on_progress=tell
    )
    assert resumed.atlas is not None
    assert_alike(resumed.atlas, whole)


def _of_three_images(folder: Path, out: Path, classes: Sequence[int] = range(4)) -> Collection:
    """An atlas of the classes that have three images and more."""
    network = model()
    images = open_images(folder, network.classes).train.select(classes)
    out.mkdir()
    return collect_model(network, images, out, out / "w", Pass(min_images=3), Options())


def test_classes_of_few_images_are_left_out(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 5)
    for path in sorted((folder / "2").iterdir())[2:]:
        path.unlink()
    done = _of_three_images(folder, tmp_path / "out")
    assert done.atlas is not None
    assert set(done.atlas.samples) == {0, 1, 3}
    assert set(done.left_out.values()) == {2}
    assert set(open_atlas(tmp_path / "out").counts) == {0, 1, 3}


def test_images_that_cannot_be_read_do_not_count_for_a_class(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 3)
    (folder / "2" / "000.png").write_bytes(b"damaged")
    done = _of_three_images(folder, tmp_path / "out")
    assert done.atlas is not None
    assert set(done.atlas.samples) == {0, 1, 3}
    assert done.left_out == {model().classes.names[2]: 2}
    with pytest.raises(InputError, match="no class has 3 images that can be read"):
        _of_three_images(folder, tmp_path / "none", [2])


def test_damage_is_told(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 3)
    atlas_of(folder, tmp_path / "atlas")
    path = tmp_path / "atlas" / evidence_file(1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="not the file that was written"):
        open_mission_atlas(tmp_path / "atlas").images(1)
    index = tmp_path / "atlas" / "evidence.json"
    index.write_text(index.read_text() + " ")
    with pytest.raises(InputError, match="not the file that was written"):
        open_mission_atlas(tmp_path / "atlas")
