from .batches import Batch, BatchStream, Loaded, load_all, load_batches
from .files import ImageRef, UnreadableImage, read_image
from .folders import Folders, ImageSet, class_folders, limit, open_images, split

__all__ = [
    "Batch",
    "BatchStream",
    "Folders",
    "ImageRef",
    "ImageSet",
    "Loaded",
    "UnreadableImage",
    "class_folders",
    "limit",
    "load_all",
    "load_batches",
    "open_images",
    "read_image",
    "split",
]
