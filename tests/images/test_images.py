"""Finding images, reading them, and batches of them."""

import io
import os
import random
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from distillnet.classes import ClassTable, numbered_table
from distillnet.errors import ImageError, InputError
from distillnet.images import (
    ImageRef,
    ImageSet,
    UnreadableImage,
    limit,
    load_all,
    load_batches,
    open_images,
    read_image,
    split,
)
from distillnet.images.preprocessing import Preprocessing, preprocess

TABLE = ClassTable(("ant", "bee", "cat"), (("n01",), ("n02", "bug"), ("n03", "bug")))
TINY = Preprocessing((4, 5), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def picture(seed, size=(6, 5), mode="RGB"):
    """A noisy image that no other seed gives; ``size`` is (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture(str(path).__len__()) if image is None else image).save(path, **options)
    return path


def relative(images, root):
    return [(ref.path.relative_to(root).as_posix(), ref.label) for ref in images.refs]


def noise_set(folder, n, bad=()):
    """``n`` images of class i % 3, those numbered in ``bad`` unreadable."""
    folder.mkdir()
    refs = []
    for i in range(n):
        path = folder / f"{i:03}.png"
        if i in bad:
            path.write_bytes(b"not an image")
        else:
            picture(i).save(path)
        refs.append(ImageRef(path, i % 3))
    return ImageSet(tuple(refs))


# Folders -------------------------------------------------------------------------------------


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


# What is wrong with a folder -----------------------------------------------------------------


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


# Parts of a set ------------------------------------------------------------------------------


def set_of(counts):
    return ImageSet(
        tuple(
            ImageRef(Path(f"{label}/{i:04}"), label)
            for label, n in counts.items()
            for i in range(n)
        )
    )


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_split(fraction):
    images = set_of({7: 2, 3: 3, 5: 50, 1: 1})
    first, second = split(images, fraction, seed=1)
    assert not set(first.refs) & set(second.refs)
    assert set(first.refs) | set(second.refs) == set(images.refs)
    for label, n in images.counts().items():
        wanted = round(fraction * n)
        assert first.counts().get(label, 0) == (min(max(wanted, 1), n - 1) if n > 1 else wanted)
    for part in (first, second):
        assert list(part.refs) == [ref for ref in images.refs if ref in set(part.refs)]
    assert split(images, fraction, seed=1) == (first, second)


def test_split_depends_on_seed_and_not_on_other_classes():
    both, alone = set_of({0: 40, 1: 40}), set_of({1: 40})
    assert split(both, 0.5, seed=0) != split(both, 0.5, seed=1)
    assert split(both, 0.5, seed=0)[0].select([1]) == split(alone, 0.5, seed=0)[0]
    positions = [{ref.path.name for ref in split(both, 0.5, 0)[0].select([c]).refs} for c in (0, 1)]
    assert positions[0] != positions[1]


def test_limit():
    images = set_of({0: 10, 1: 3})
    few, more = limit(images, 2, seed=0), limit(images, 5, seed=0)
    assert (few.counts(), more.counts()) == ({0: 2, 1: 2}, {0: 5, 1: 3})
    assert set(few.refs) < set(more.refs)
    assert limit(images, 10, seed=0) == images
    assert limit(images, 2, seed=0) == few != limit(images, 2, seed=1)


def test_bad_arguments():
    images = set_of({0: 2})
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="fraction"):
            split(images, fraction, 0)
    with pytest.raises(InputError, match="0 images per class"):
        limit(images, 0, 0)
    with pytest.raises(InputError, match="batches of 0 images with -1 workers"):
        load_batches(images, TINY, batch_size=0, workers=-1)


# Reading one image ---------------------------------------------------------------------------


def red_left_of_blue(mode="RGB"):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, :2, 0] = 255
    pixels[:, 2:, 2] = 255
    return Image.fromarray(pixels).convert(mode)


def test_modes_that_hold_all_of_the_image(tmp_path):
    reference = np.array(red_left_of_blue())
    for mode, suffix in (
        ("RGB", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
    ):
        options = {"lossless": True} if suffix == "webp" else {}
        path = save(tmp_path / f"{mode}.{suffix}", red_left_of_blue(mode), **options)
        image = read_image(ImageRef(path, 0))
        assert image.mode == "RGB", (mode, suffix)
        assert np.array_equal(np.array(image), reference), (mode, suffix)


@pytest.mark.parametrize(
    ("mode", "suffix", "read_as"),
    [("L", "png", "L"), ("1", "png", "L"), ("LA", "png", "RGB"), ("CMYK", "jpg", "RGB"),
     ("YCbCr", "jpg", "RGB"), ("CMYK", "tif", "RGB")],
)  # fmt: skip
def test_other_modes(tmp_path, mode, suffix, read_as):
    path = save(tmp_path / f"image.{suffix}", red_left_of_blue(mode))
    image = read_image(ImageRef(path, 0))
    assert image.mode == read_as
    # Grey loses the hue, and JPEG some of the rest; the brightness stays.
    grey = np.array(image.convert("L"), dtype=int)
    if mode != "1":
        assert np.abs(grey - np.array(red_left_of_blue("L"), dtype=int)).max() <= 30


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    grey = np.array([[0, 127, 128, 257, 32896, 65535]], dtype=np.uint16)
    path = save(tmp_path / f"grey.{suffix}", Image.fromarray(grey))
    image = read_image(ImageRef(path, 0))
    assert image.mode == "L"
    assert np.array(image).tolist() == [[round(value / 257) for value in grey[0].tolist()]]


def test_big_endian_sixteen_bits(tmp_path):
    data = struct.pack(">2H", 0x0100, 0xFF00)
    path = save(tmp_path / "grey.tif", Image.frombytes("I;16B", (2, 1), data))
    assert np.array(read_image(ImageRef(path, 0))).tolist() == [[1, 254]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_pixels_show_a_white_page(tmp_path, mode):
    if mode == "P":
        image, options = Image.new("P", (2, 1), 3), {"transparency": 3}
        image.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 0, 0])
        image.putpixel((1, 0), 0)
    elif mode == "L":
        image, options = Image.new("L", (2, 1), 9), {"transparency": 9}
        image.putpixel((1, 0), 0)
    else:
        image, options = Image.new(mode, (2, 1), (0,) * len(mode)), {}
        image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
    read = np.array(read_image(ImageRef(save(tmp_path / "x.png", image, **options), 0)))
    assert read.tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_exif_orientation(tmp_path, orientation, undo):
    stored = picture(0, (4, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", stored, exif=exif)
    expected = stored if undo is None else stored.transpose(undo)
    assert np.array_equal(np.array(read_image(ImageRef(path, 0))), np.array(expected))


def test_broken_exif_leaves_the_pixels(tmp_path):
    path = save(tmp_path / "x.jpg", picture(0), exif=b"Exif\0\0not a TIFF header")
    assert read_image(ImageRef(path, 0)).size == (6, 5)


def bomb():
    """A PNG that says it has 40,000 x 40,000 pixels."""
    data = io.BytesIO()
    Image.new("L", (1, 1)).save(data, "PNG")
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + data.getvalue()[24:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    return data.getvalue()[:12] + header + checksum + data.getvalue()[33:]


def encoded(image, kind):
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


BAD_IMAGES = {
    "zero.jpg": (lambda: b"", "the file is empty"),
    "text.jpg": (lambda: b"<html>404 not found</html>", "not an image; expected JPEG, PNG"),
    "truncated.jpg": (lambda: encoded(picture(0, (64, 64)), "JPEG")[:-500], "truncated"),
    "truncated.png": (lambda: encoded(picture(0, (64, 64)), "PNG")[:-500], "truncated"),
    "header.png": (lambda: encoded(picture(0), "PNG")[:20], "Truncated"),
    "crc.png": (lambda: encoded(picture(0), "PNG").replace(b"IDAT", b"IDAU"), ""),
    "bomb.png": (bomb, "decompression bomb"),
    "strip.png": (lambda: encoded(Image.new("L", (1, 101)), "PNG"), "1 x 101 pixels"),
    "vector.png": (lambda: encoded(picture(0), "EPS"), "not an image"),
    "float.tif": (lambda: encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point grey"),
    "int32.tif": (lambda: encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "32-bit grey"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_unreadable_image(tmp_path, name):
    make, reason = BAD_IMAGES[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(UnreadableImage) as caught:
        read_image(ImageRef(path, 0))
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_unreadable_places(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("ant/1.png", b"not an image")
    for ref, message in (
        (ImageRef(tmp_path / "missing.png", 0), "missing.png: there is no such file"),
        (ImageRef(tmp_path, 0), "Is a directory"),
        (ImageRef(tmp_path / "a.zip", 0, member="ant/1.png"), "a.zip:ant/1.png: not an image"),
        (ImageRef(tmp_path / "a.zip", 0, member="ant/2.png"), "a.zip:ant/2.png: "),
        (ImageRef(tmp_path / "b.zip", 0, member="ant/1.png"), "there is no such file"),
        (ImageRef(tmp_path / "idx", 0, index=3), "idx, image 3: there is no such file"),
    ):
        with pytest.raises(UnreadableImage) as caught:
            read_image(ref)
        assert message in str(caught.value)


# Preprocessing -------------------------------------------------------------------------------

# Of 49 x 147 a float ratio 256 / 49 makes 767 pixels, and exact arithmetic 768.
SIZES = [(224, 224), (256, 256), (500, 375), (333, 501), (97, 61), (257, 1024), (640, 223)]
SIZES += [(3, 40), (49, 147)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("crop", "resize"), [(224, 256), (224, 232), (223, 235), (64, 64), (80, 61)]
)
def test_preprocess_is_torchvisions(crop, resize, mode):
    how = Preprocessing((crop, crop), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=resize)
    theirs = ImageClassification(crop_size=crop, resize_size=resize, mean=how.mean, std=how.std)
    for size in SIZES:
        image = picture(sum(size), size, mode)
        expected = theirs(image.convert("RGB"))
        assert torch.equal(preprocess(image, how), expected), (size, crop, resize)


def test_preprocess_is_torchvisions_bicubic():
    mean = (0.5, 0.5, 0.5)
    how = Preprocessing((48, 48), mean, mean, resize=50, interpolation="bicubic")
    theirs = ImageClassification(
        crop_size=48, resize_size=50, mean=mean, std=mean, interpolation=InterpolationMode.BICUBIC
    )
    for size in SIZES:
        assert torch.equal(preprocess(picture(1, size), how), theirs(picture(1, size)))


def test_preprocess_of_the_caffe_convention():
    """The whole image squashed, BGR, 0 to 255 less the mean."""
    how = Preprocessing((4, 3), (104, 117, 123), (1, 1, 1), divisor=1.0, channels="BGR")
    image = picture(0, (3, 4))
    pixels_hwc = np.array(image).astype(np.float64)
    expected = pixels_hwc[:, :, ::-1] - [104, 117, 123]
    assert np.array_equal(preprocess(image, how).permute(1, 2, 0).numpy(), expected)
    assert preprocess(picture(0, (30, 10)), how).shape == (3, 4, 3)


# Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 20, 100])
def test_batches_are_dense_and_in_order(tmp_path, workers, batch_size):
    # 1 of 110 is unreadable: under 1 %. It is the last of a full batch of 8 or 20.
    images = noise_set(tmp_path / "i", 110, bad=[39])
    done = []
    stream = load_batches(
        images, TINY, batch_size=batch_size, workers=workers, on_image=done.append
    )
    for _ in range(2):  # it can be iterated again
        batches = list(stream)
        refs = [ref for batch in batches for ref in batch.refs]
        assert refs == [ref for i, ref in enumerate(images.refs) if i != 39]
        sizes = [len(batch.refs) for batch in batches]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 0 < sizes[-1] <= batch_size
        for batch in batches:
            assert batch.x_nchw.dtype == torch.float32
            assert batch.labels_n.dtype == torch.int64
            assert batch.x_nchw.shape == (len(batch.refs), 3, 4, 5)
            assert batch.labels_n.tolist() == [ref.label for ref in batch.refs]
            expected = [preprocess(picture(int(ref.path.stem)), TINY) for ref in batch.refs]
            assert torch.equal(batch.x_nchw, torch.stack(expected))
        assert len(stream.unreadable) == 1
        assert stream.unreadable[0].startswith(f"{images.refs[39].path}: not an image")
        assert done == sorted(done)
        assert done[-1] == 110
        done.clear()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("n", "bad", "stops"),
    [
        (200, [0, 1], False),
        (200, [0, 1, 2], True),
        (100, [99], False),
        (99, [50], True),
        (1, [0], True),
    ],
)
def test_at_most_one_percent_may_be_unreadable(tmp_path, n, bad, stops, workers):
    images = noise_set(tmp_path / "i", n, bad)
    if not stops:
        loaded = load_all(images, TINY, workers=workers)
        assert (len(loaded.refs), len(loaded.unreadable)) == (n - len(bad), len(bad))
        assert loaded.x_nchw.shape == (n - len(bad), 3, 4, 5)
        return
    read: list[int] = []
    with pytest.raises(ImageError, match=f"{len(bad)} of {n} images cannot be read") as caught:
        load_all(images, TINY, workers=workers, on_image=read.append)
    assert str(images.refs[bad[0]].path) in str(caught.value)
    assert max(read, default=0) <= bad[-1]  # it stopped as soon as it was certain


def test_load_all_equals_the_batches(tmp_path):
    images = noise_set(tmp_path / "i", 30)
    loaded = load_all(images, TINY)
    batches = list(load_batches(images, TINY, batch_size=9))
    assert torch.equal(loaded.x_nchw, torch.cat([batch.x_nchw for batch in batches]))
    assert torch.equal(loaded.labels_n, torch.cat([batch.labels_n for batch in batches]))
    assert loaded.refs == images.refs


def test_an_empty_set_has_no_batches():
    assert list(load_batches(ImageSet(()), TINY)) == []
    assert load_all(ImageSet(()), TINY, workers=2).x_nchw.shape == (0, 3, 4, 5)


def test_stopping_early_leaves_no_process(tmp_path):
    import multiprocessing

    images = noise_set(tmp_path / "i", 100)
    stream = iter(load_batches(images, TINY, batch_size=4, workers=2))
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


def test_the_callers_random_state_is_untouched(tmp_path):
    images = noise_set(tmp_path / "i", 10)
    states = torch.get_rng_state(), random.getstate()
    load_all(images, TINY, workers=1)
    split(images, 0.5, 0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_workers_need_not_be_forked(tmp_path):
    import pickle

    from distillnet.images.batches import _Chunks

    chunks = _Chunks(noise_set(tmp_path / "i", 3), TINY)
    assert np.array_equal(pickle.loads(pickle.dumps(chunks))[0].x_nchw, chunks[0].x_nchw)


INTERRUPTED = """
import sys
from pathlib import Path
from distillnet.images import ImageRef, ImageSet, load_batches
from distillnet.images.preprocessing import Preprocessing
if __name__ == "__main__":
    images = ImageSet((ImageRef(Path(sys.argv[1]), 0),) * 1_000_000)
    how = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    try:
        for number, batch in enumerate(load_batches(images, how, workers=2)):
            if number == 2:
                print("reading", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process group")
def test_interrupt_with_workers(tmp_path):
    path = save(tmp_path / "x.png")
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group, and only it
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert (process.returncode, errors) == (130, "")


def test_real_images(data_dir):
    table = ClassTable(("tench", "springer"), (("n01440764",), ("n02102040",)))
    folders = open_images(data_dir / "imagenette", table, [1, 0])
    assert folders.val is not None
    assert Counter(ref.label for ref in folders.train.refs) == {1: 200, 0: 200}
    assert folders.val.counts() == {1: 50, 0: 50}
    few = limit(folders.val, 3, 0)
    how = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, resize=256)
    assert torch.equal(load_all(few, how).x_nchw, load_all(few, how, workers=2).x_nchw)
