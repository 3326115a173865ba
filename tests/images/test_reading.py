"""One image: what is read of every mode, and what is said of those that cannot be read."""

import io
import os
import socket
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillnet.images import ImageRef, UnreadableImage, read_image
from noisy_pictures import picture, save


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


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_beyond_the_limit_are_not_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", Image.new("L", (13_000, 13_000)))
    assert path.stat().st_size < 600_000
    monkeypatch.setattr(Image.Image, "load", None)  # nothing is decoded
    for limit, shown in ((None, "64,000,000"), (10_000_000, "10,000,000")):
        with pytest.raises(UnreadableImage, match=f"13000 x 13000 pixels, more than the {shown}"):
            read_image(ImageRef(path, 0), **({} if limit is None else {"max_pixels": limit}))


def zipped(path, method, data, **lies):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("ant/1.png", data)
        for name, value in lies.items():
            setattr(file.filelist[0], name, value)  # what its directory says
    return ImageRef(path, 0, member="ant/1.png")


@pytest.mark.parametrize(
    ("method", "n_bytes", "lies", "message"),
    [
        (zipfile.ZIP_DEFLATED, 300_000_000, {}, "300,000,000 bytes, at most 193,048,576"),
        (zipfile.ZIP_DEFLATED, 90_000_000, {"file_size": 2_000}, "Bad CRC-32"),
        (zipfile.ZIP_BZIP2, 1_000, {}, "store or deflate it"),
        (zipfile.ZIP_LZMA, 1_000, {}, "store or deflate it"),
    ],
)  # fmt: skip
def test_no_more_of_an_archive_is_unpacked_than_an_image_has(
    tmp_path, method, n_bytes, lies, message
):
    ref = zipped(tmp_path / "a.zip", method, bytes(n_bytes), **lies)
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match=message):
        read_image(ref)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_file_that_grows_beyond_its_pixels_is_not_read(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UnreadableImage, match="8,589,934,592 bytes, at most 193,048,576 are read"):
        read_image(ImageRef(path, 0))


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path):
    data = encoded(picture(0, (64, 64)), "JPEG")
    picture(0, (64, 64)).save(tmp_path / "x.jpg", progressive=True)
    data = (tmp_path / "x.jpg").read_bytes()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(data[:last] + 5_000 * data[last:-2] + data[-2:])
    with pytest.raises(UnreadableImage, match="more than 200 scans"):
        read_image(ImageRef(tmp_path / "x.jpg", 0))


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("form", ["image", "zip", "idx"])
def test_only_regular_files_are_read(tmp_path, kind, form):
    path = Path("/dev/zero") if kind == "device" else tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    others = {"image": {}, "zip": {"member": "a.png"}, "idx": {"index": 0}}
    with pytest.raises(UnreadableImage, match=r"regular file|No such device"):
        read_image(ImageRef(path, 0, **others[form]))


def test_too_little_memory_is_no_fault_of_the_image(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", picture(0))

    def fails(*args, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(MemoryError):
        read_image(ImageRef(path, 0))


@pytest.mark.parametrize("form", ["lossy", "lossless", "animated"])
def test_room_for_a_webp_is_not_made_before_its_size_is_known(tmp_path, monkeypatch, form):
    image = Image.new("RGB", (300, 200), "red")
    options = {"lossless": form == "lossless"}
    if form == "animated":
        options = {"save_all": True, "append_images": [Image.new("RGB", (300, 200))]}
    path = save(tmp_path / "x.webp", image, **options)
    assert read_image(ImageRef(path, 0), None, 60_000).size == (300, 200)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UnreadableImage, match="300 x 200 pixels, more than the 59,999"):
        read_image(ImageRef(path, 0), None, 59_999)
