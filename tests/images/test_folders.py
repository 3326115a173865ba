"""Which images a folder holds and of which class, and what is wrong with a folder."""

import io
import random
import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from distillnet.classes import ClassTable, numbered_table, parse_mission
from distillnet.errors import ImageError
from distillnet.images import (
    ImageRef,
    ImageSet,
    class_folders,
    limit,
    load_all,
    open_images,
    read_image,
)
from distillnet.images.preprocessing import Preprocessing
from noisy_pictures import TABLE, TINY, picture, save


def relative(images, root):
    return [(ref.path.relative_to(root).as_posix(), ref.label) for ref in images.refs]


def test_class_folders(tmp_path):
    for name in (
        "bee/2.png",
        "bee/deep/er/1.JPG",
        "N02/3.png",  # another alias of the same class: merged
        "0/x.webp",
        "cat/c.bmp",
        "hornet/h.png",  # no class of the table
        "bee/.hidden.png",
        "bee/.git/1.png",
        ".cat/1.png",
        "stray.png",
    ):
        save(tmp_path / name)
    (tmp_path / "bee/notes.txt").write_text("no image")
    folders = open_images(tmp_path, TABLE, [1, 0])
    assert folders.val is None
    expected = [("N02/3.png", 1), ("bee/2.png", 1), ("bee/deep/er/1.JPG", 1), ("0/x.webp", 0)]
    assert relative(folders.train, tmp_path) == expected
    assert len(folders.train) == 4
    assert folders.train.counts() == {1: 3, 0: 1}
    assert list(folders.train.counts()) == [1, 0]
    assert open_images(tmp_path, TABLE).train.counts() == {0: 1, 1: 3, 2: 1}


def test_images_of_other_kinds_are_counted(tmp_path):
    for name in ("ant/1.png", "bee/2.png", "val/ant/3.png", "val/bee/4.png"):
        save(tmp_path / "train" / name if "val" not in name else tmp_path / name)
    (tmp_path / "train" / "cat").mkdir()
    names = ("train/ant/a.HEIC", "train/ant/deep/b.heic", "val/bee/c.avif", "train/cat/d.heic")
    for name in (*names, "train/ant/notes.txt", "train/ant/.e.heic", "train/stray.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no matter what")
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for path in (tmp_path / "train").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "train"))
    folders = open_images(tmp_path, TABLE, [0, 1])
    assert folders.left_out == {".avif": 1, ".heic": 2}  # those of classes that are wanted
    assert folders.train.counts() == {0: 1, 1: 1}
    with pytest.raises(ImageError, match=r"class 2 \(cat\).* Left out: 1 \.heic file, not read"):
        open_images(tmp_path, TABLE, [0, 1, 2])
    (inside := tmp_path / "inside").mkdir()
    (tmp_path / "zipped.zip").rename(inside / "train.zip")
    assert open_images(inside, TABLE, [0, 1]).left_out == {".heic": 2}


def test_select_orders_by_class_then_path():
    refs = [ImageRef(Path(f"{name}.png"), label) for name, label in [("b", 0), ("a", 0), ("c", 2)]]
    images = ImageSet(tuple(refs))
    assert [str(ref) for ref in images.select([2, 0]).refs] == ["c.png", "a.png", "b.png"]
    assert images.select([1]).refs == ()


@pytest.mark.parametrize("kept_apart", ["val", "test"])
def test_train_and_val_folders(tmp_path, kept_apart):
    for name in ("train/ant/1.png", "train/bee/2.png", "{0}/ant/3.png", "{0}/bee/4.png"):
        save(tmp_path / name.format(kept_apart))
    folders = open_images(tmp_path, TABLE, [0, 1])
    assert relative(folders.train, tmp_path) == [("train/ant/1.png", 0), ("train/bee/2.png", 1)]
    assert folders.val is not None
    assert [ref.path.name for ref in folders.val.refs] == ["3.png", "4.png"]


def test_val_is_preferred_to_test_and_may_be_absent(tmp_path):
    save(tmp_path / "train/ant/1.png")
    assert open_images(tmp_path, TABLE, [0]).val is None
    for name in ("val", "test"):
        save(tmp_path / name / "ant" / f"{name}.png")
    val = open_images(tmp_path, TABLE, [0]).val
    assert val is not None
    assert [ref.path.name for ref in val.refs] == ["val.png"]


def test_a_class_may_be_called_train(tmp_path):
    save(tmp_path / "train/1.png")
    save(tmp_path / "bus/2.png")
    table = numbered_table(2, ["train", "bus"])
    assert open_images(tmp_path, table, [0, 1]).train.counts() == {0: 1, 1: 1}


def test_zips(tmp_path):
    for name, seeds in (("train", (1, 2, 3)), ("test", (4, 5))):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            for seed in reversed(seeds):
                data = io.BytesIO()
                picture(seed).save(data, "PNG")
                file.writestr(f"{('ant', 'bee')[seed % 2]}/in/{seed}.png", data.getvalue())
            file.writestr("__MACOSX/ant/._1.png", b"not an image")
            file.writestr("ant/.DS_Store", b"not an image")
    folders = open_images(tmp_path, TABLE, [1, 0])
    members = [ref.member for ref in folders.train.refs]
    assert members == ["bee/in/1.png", "bee/in/3.png", "ant/in/2.png"]
    assert folders.val is not None
    assert folders.val.counts() == {1: 1, 0: 1}
    for ref, seed in zip(folders.train.refs, (1, 3, 2), strict=True):
        assert np.array_equal(np.array(read_image(ref)), np.array(picture(seed)))
    for workers in (0, 2):
        loaded = load_all(folders.train, TINY, workers=workers)
        assert loaded.labels_n.tolist() == [1, 1, 0]


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("raw", ["MNIST/raw", "raw", "."])
def test_idx_files(tmp_path, raw):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5))
    for name, part in (("train", slice(4)), ("t10k", slice(4, 6))):
        write_idx(tmp_path / raw / f"{name}-images-idx3-ubyte", pixels[part])
        write_idx(tmp_path / raw / f"{name}-labels-idx1-ubyte", np.array([2, 0, 1, 0, 0, 2])[part])
    folders = open_images(tmp_path, numbered_table(3), [0, 2])
    assert [(ref.label, ref.index) for ref in folders.train.refs] == [(0, 1), (0, 3), (2, 0)]
    assert folders.val is not None
    assert folders.val.counts() == {0: 1, 2: 1}
    assert np.array_equal(np.array(read_image(folders.train.refs[1])), pixels[3])
    how = Preprocessing((4, 5), (0.0,), (1.0,), divisor=1.0, channels="L")
    for workers in (0, 2):
        assert torch.equal(
            load_all(folders.train, how, workers=workers).x_nchw[:, 0],
            torch.tensor(pixels[[1, 3, 0]], dtype=torch.float32),
        )


def test_idx_agrees_with_torchvision(data_dir):
    from torchvision.datasets import MNIST

    folders = open_images(data_dir, numbered_table(10), range(10))
    assert folders.val is not None
    for images, train in ((folders.train, True), (folders.val, False)):
        theirs = MNIST(str(data_dir), train=train, download=False)
        assert sorted(ref.index or 0 for ref in images.refs) == list(range(len(theirs)))
        for ref in random.Random(0).sample(images.refs, 20):
            image, label = theirs[ref.index]
            assert label == ref.label
            assert np.array_equal(np.array(image), np.array(read_image(ref)))


def test_cifar_zips(data_dir):
    with zipfile.ZipFile(data_dir / "cifar10" / "test.zip") as file:
        names = sorted({name.split("/")[0] for name in file.namelist()})
    assert names[3::2] == ["cat", "dog", "horse", "truck"]
    folders = open_images(data_dir / "cifar10", numbered_table(10, names), [3, 5])
    assert folders.val is not None
    assert (folders.train.counts(), folders.val.counts()) == (
        {3: 5000, 5: 5000},
        {3: 1000, 5: 1000},
    )
    assert read_image(folders.val.refs[0]).size == (32, 32)


def test_missing_folder_and_file(tmp_path):
    with pytest.raises(ImageError, match="nowhere does not exist; expected a folder"):
        open_images(tmp_path / "nowhere", TABLE)
    file = save(tmp_path / "file.png")
    with pytest.raises(ImageError, match="is not a folder; expected a folder"):
        open_images(file, TABLE)


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        ([], None, "no images of any of the network's 3 classes.*found no folders"),
        ([], [0], r"no images of class 0 \(ant\); expected a folder called '0', 'ant', 'n01' with"),
        (["wasp/1.png"], [0], "found wasp"),
        (["ant/1.txt"], [0], "no images of class 0"),
        (
            ["ant/1.png"],
            [0, 2],
            r"no images of class 2 \(cat\).*'2', 'cat', 'n03', 'bug'.*found ant",
        ),
        (["train/ant/1.png", "val/bee/1.png"], [0], r"val holds no images of class 0.*found bee"),
        (["ant/1.png", "bug/1.png"], [1], "in .*'bug' fits 2 classes.*1 bee .*2 cat .*Rename"),
        (["ant/1.png", "bug/1.png"], None, "'bug' fits 2 classes"),
    ],
)
def test_unusable_folder(tmp_path, files, classes, message):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(ImageError, match=message):
        open_images(tmp_path, TABLE, classes)


def test_all_classes_without_images_are_in_one_message(tmp_path):
    for name in ("ant/1.png", "bea/2.png", "zoo/3.png"):
        save(tmp_path / name)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ImageError) as caught:
        open_images(tmp_path, TABLE, [0, 1, 2])
    first, *listed = str(caught.value).splitlines()
    assert "no images of 2 of 3 classes" in first
    assert "found ant, bea, cat, zoo:" in first
    bee, cat, advice = listed
    assert "class 1 (bee), called '1', 'bee', 'n02'" in bee
    assert "If 'bea' is meant, write \"bea=bee\"" in bee
    assert cat.strip() == "class 2 (cat), called '2', 'cat', 'n03', 'bug'"
    assert advice.startswith("No class matches the folders bea, zoo; in --classes, bea=NAME")


def test_a_missions_own_names_are_folders(tmp_path):
    for name in ("Brolly/1.png", "ant/2.png", "bees/3.png", "cat/4.png"):
        save(tmp_path / name)
    mission = parse_mission("brolly=cat,bee", TABLE)
    images = open_images(tmp_path, TABLE, mission).train
    expected = [("Brolly/1.png", 2), ("cat/4.png", 2), ("bees/3.png", 1)]
    assert relative(images, tmp_path) == expected
    (tmp_path / "others" / "ant").mkdir(parents=True)
    with pytest.raises(ImageError) as caught:
        open_images(tmp_path / "others", TABLE, mission)
    assert "class 2 (brolly), called '2', 'brolly', 'cat', 'n03'" in str(caught.value)


def test_class_folders_are_those_with_images(tmp_path):
    """Whether a class has such a name or not: what fits none is for the caller to tell."""
    for name in ("zoo/deep/1.png", "bee/2.png", ".git/3.png", "train.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.txt").write_text("")
    assert class_folders(tmp_path, TABLE) == ("bee", "zoo")
    (tmp_path / "both").mkdir()
    (tmp_path / "bee").rename(tmp_path / "both" / "train")
    assert class_folders(tmp_path / "both", numbered_table(2, ["train", "x"])) == ("train",)
    assert class_folders(tmp_path / "both", TABLE) == ()
    with pytest.raises(ImageError, match="absent does not exist"):
        class_folders(tmp_path / "absent", TABLE)


def test_class_folders_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for name in ("zoo/1.png", "bee/a/2.png", "notes/read.txt", ".git/3.png", "4.png"):
            archive.writestr(name, b"")
    assert class_folders(tmp_path, TABLE) == ("bee", "zoo")


def test_an_ambiguous_folder_of_other_classes_is_ignored(tmp_path):
    save(tmp_path / "ant/1.png")
    save(tmp_path / "bug/1.png")
    assert open_images(tmp_path, TABLE, [0]).train.counts() == {0: 1}


def test_links_that_lead_in_circles(tmp_path):
    save(tmp_path / "data/ant/1.png")
    save(tmp_path / "elsewhere/2.png")
    (tmp_path / "data/ant/loop").symlink_to(tmp_path / "data/ant")
    (tmp_path / "data/ant/more").symlink_to(tmp_path / "elsewhere")
    save(tmp_path / "data/bee/3.png")
    (tmp_path / "data/ant/up").symlink_to(tmp_path / "data")  # out of the class
    images = open_images(tmp_path / "data", TABLE, [0]).train
    assert [ref.path.name for ref in images.refs] == ["1.png", "2.png"]


def test_broken_zip(tmp_path):
    (tmp_path / "train.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ImageError, match=r"train\.zip cannot be read as a zip"):
        open_images(tmp_path, TABLE)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"", None, "does not begin like an IDX file"),
        (b"\x1f\x8b\x08\x00gzip", None, "does not begin like an IDX file"),
        (struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(31), None, r"\(2, 4, 4\), but 31 bytes"),
        (struct.pack(">HBBI", 0, 8, 3, 2), None, "but 0 bytes follow"),
        (struct.pack(">HBBIII", 0, 8, 3, *[2**32 - 1] * 3), None, "but 0 bytes follow"),
        (None, struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3), r"one of \(3,\); expected"),
        (
            None,
            struct.pack(">HBBI", 0, 8, 1, 2) + b"\x01\x07",
            "names class 7, but the network has 3",
        ),
        (None, "absent", "without its labels"),
    ],
)
def test_broken_idx(tmp_path, images, labels, message):
    files = {
        "train-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(32),
        "train-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, 2) + b"\x00\x01",
    }
    for name, data in zip(files, (images, labels), strict=True):
        if data != "absent":
            (tmp_path / name).write_bytes(files[name] if data is None else data)
    with pytest.raises(ImageError, match=message):
        open_images(tmp_path, TABLE)


def test_real_images(data_dir):
    table = ClassTable(("tench", "springer"), (("n01440764",), ("n02102040",)))
    folders = open_images(data_dir / "imagenette", table, [1, 0])
    assert folders.val is not None
    assert Counter(ref.label for ref in folders.train.refs) == {1: 200, 0: 200}
    assert folders.val.counts() == {1: 50, 0: 50}
    few = limit(folders.val, 3, 0)
    how = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, resize=256)
    assert torch.equal(load_all(few, how).x_nchw, load_all(few, how, workers=2).x_nchw)
