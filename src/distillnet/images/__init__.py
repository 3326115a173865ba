"""Images by class: which there are, parts of them, and batches of tensors.

A label is always the network's own class index, never a position in the mission.
"""

from distillnet.images.batches import Batch, BatchStream, Loaded, load_all, load_batches
from distillnet.images.files import MAX_PIXELS, ImageRef, UnreadableImage, read_image
from distillnet.images.folders import Folders, ImageSet, limit, open_images, split

__all__ = [
    "MAX_PIXELS",
    "Batch",
    "BatchStream",
    "Folders",
    "ImageRef",
    "ImageSet",
    "Loaded",
    "UnreadableImage",
    "limit",
    "load_all",
    "load_batches",
    "open_images",
    "read_image",
    "split",
]
