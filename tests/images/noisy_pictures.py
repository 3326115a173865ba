"""Noisy pictures, in files and in sets."""

import numpy as np
from PIL import Image

from distillnet.classes import ClassTable
from distillnet.images import ImageRef, ImageSet
from distillnet.images.preprocessing import Preprocessing

__all__ = ["TABLE", "TINY", "noise_set", "picture", "save"]

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
