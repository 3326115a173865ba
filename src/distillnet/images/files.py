"""One image: where it lies, and how its bytes become 8-bit grey or RGB pixels."""

import hashlib
import io
import struct
import threading
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from distillnet.errors import ImageError
from distillnet.files.regular import open_regular, read_regular
from distillnet.images.left_out import MAX_PIXELS

__all__ = ["ImageRef", "OpenFiles", "UnreadableImage", "image_digest", "read_idx", "read_image"]

# What a folder of photographs holds. Not all that Pillow could open: EPS runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF")

# An image this much longer than wide is damaged, and scaling its short side up to a network's
# input would take gigabytes.
_MAX_ASPECT_RATIO = 100

_BYTES_PER_PIXEL = 3  # of a file that is not compressed at all, and 1 MB for what else is in it
# Progressive JPEGs have ten or so, each of which is decoded over the whole image.
_MAX_SCANS = 200
_SCAN = b"\xff\xda"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack without bounds


class UnreadableImage(ImageError):  # noqa: N818 - it is what was found, like StopIteration
    """One image cannot be read; the message begins with its path."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of the class ``label`` (the network's class index).

    It is the file ``path``, or the file ``member`` in the zip ``path``, or image number ``index``
    in the IDX file ``path``.
    """

    path: Path
    label: int
    member: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        if self.member is not None:
            return f"{self.path}:{self.member}"
        return str(self.path) if self.index is None else f"{self.path}, image {self.index}"


class OpenFiles:
    """The zip and IDX files that stay open from one image to the next.

    Belongs to one process: two that share a file descriptor move each other's read position. Its
    threads may share it.
    """

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._zips: dict[Path, zipfile.ZipFile] = {}
        self._idx: dict[Path, np.ndarray] = {}
        self._stack = ExitStack()

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[()]]:
        return OpenFiles, ()  # another process opens its own

    def zip(self, path: Path) -> zipfile.ZipFile:
        """The zip file, open."""
        with self._opening:
            if path not in self._zips:
                opened = self._stack.enter_context(open_regular(path))
                self._zips[path] = self._stack.enter_context(zipfile.ZipFile(opened))
            return self._zips[path]

    def idx(self, path: Path) -> np.ndarray:
        """The IDX file's array, mapped into memory."""
        with self._opening:
            if path not in self._idx:
                self._idx[path] = read_idx(path)
            return self._idx[path]

    def close(self) -> None:
        """Close all files; the next use opens them anew."""
        self._stack.close()
        self._zips.clear()
        self._idx.clear()


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an uncompressed IDX file, as MNIST's, mapped into memory read-only."""
    with open_regular(path) as file:
        zeros, kind, n_dims = struct.unpack(">HBB", file.read(4).ljust(4, b"\xff"))
        if zeros != 0 or kind != 8 or not 1 <= n_dims <= 4:
            raise ImageError(
                f"{path} does not begin like an IDX file of bytes; put an uncompressed one there"
            )
        shape = struct.unpack(f">{n_dims}I", file.read(4 * n_dims).ljust(4 * n_dims, b"\0"))
    offset = 4 + 4 * n_dims
    n_bytes = path.stat().st_size - offset
    if n_bytes != np.prod(shape, dtype=object) or n_bytes == 0:
        raise ImageError(
            f"{path} announces an array of shape {shape}, but {max(0, n_bytes)} bytes follow; "
            "download the file again"
        )
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def read_image(
    ref: ImageRef, files: OpenFiles | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The upright image in 8 bits, of mode L or RGB; UnreadableImage if there is none.

    Turned as its EXIF orientation says. Transparent pixels show a white page. 16-bit grey is
    scaled, not clipped, to 8 bits. Colour profiles are ignored, as in the training of every
    common network. ``files`` keeps zip and IDX files open between calls. An image of more than
    ``max_pixels`` is not decoded, and nothing is read that is no regular file.
    """
    opened = OpenFiles() if files is None else files
    try:
        return _decode(ref, opened, max_pixels)
    except MemoryError:
        raise  # this machine's fault, not the image's
    # Decoders meet damaged files with nearly every type of exception there is.
    except Exception as error:
        raise UnreadableImage(f"{ref}: {_reason(error)}") from error
    finally:
        if files is None:
            opened.close()


def image_digest(ref: ImageRef, files: OpenFiles, max_pixels: int = MAX_PIXELS) -> bytes | None:
    """What tells an image's content from any other's, wherever it lies: 16 bytes of BLAKE2b.

    None where the file cannot be read, or is beyond all images of ``max_pixels``; equal for copies.
    """
    try:
        if ref.index is not None:
            data = files.idx(ref.path)[ref.index].tobytes()
        else:
            data = _bytes(ref, files, max_pixels)
    except Exception:  # noqa: BLE001 - as in read_image, which says what is wrong
        return None
    return hashlib.blake2b(data, digest_size=16).digest()


def _bytes(ref: ImageRef, files: OpenFiles, max_pixels: int) -> bytes:
    """The encoded image, which is no larger than its pixels would be."""
    at_most = _BYTES_PER_PIXEL * max_pixels + 2**20
    if ref.member is None:
        return read_regular(ref.path, at_most)
    archive = files.zip(ref.path)
    info = archive.getinfo(ref.member)
    if info.compress_type not in _METHODS:
        raise ValueError("compressed by a method that is not supported; store or deflate it")
    if info.file_size > at_most:
        raise ValueError(f"{info.file_size:,} bytes, at most {at_most:,} are read")
    with archive.open(info) as file:
        return file.read(info.file_size)  # read() would unpack what follows, too


def _decode(ref: ImageRef, files: OpenFiles, max_pixels: int) -> Image.Image:
    if ref.index is not None:
        return Image.fromarray(np.array(files.idx(ref.path)[ref.index]))
    data = _bytes(ref, files, max_pixels)
    if not data:
        raise ValueError("the file is empty")
    width, height = _webp_size(data)  # Pillow makes room for its pixels before it tells it
    _check_pixels(width, height, max_pixels)
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
            raise ValueError(
                f"{image.width} x {image.height} pixels; expected sides that differ by a factor "
                f"of at most {_MAX_ASPECT_RATIO}"
            )
        _check_pixels(*image.size, max_pixels)
        if image.format == "JPEG" and data.count(_SCAN) > _MAX_SCANS:
            raise ValueError(f"more than {_MAX_SCANS} scans, which no camera writes")
        image.load()
        return _eight_bits(_upright(image))


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(
            f"{width} x {height} pixels, more than the {max_pixels:,} allowed; make it smaller, or "
            "allow more with --max-pixels"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP, as its container specification has them; else 0."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    number = int.from_bytes(data[24:30], "little")
    if data[12:16] == b"VP8X":  # 24 bits each, less 1
        return 1 + number % 2**24, 1 + (number >> 24)
    if data[12:16] == b"VP8L":  # 14 bits each, less 1
        number = int.from_bytes(data[21:25], "little")
        return 1 + number % 2**14, 1 + (number >> 14) % 2**14
    return (number >> 16) % 2**14, (number >> 32) % 2**14


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image; expected {', '.join(_FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - broken metadata; the pixels were read all the same
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own convert() clips at 255. Older versions open 16-bit files in mode I.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("32-bit grey has no known value range; expected 8 or 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point grey has no known value range; expected 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")
