from .album import Album
from .batches import Batch, BatchStream, Loaded, load_all, load_batches
from .files import ImageRef, OpenFiles, UnreadableImage, image_digest, read_image
from .folders import Folders, ImageSet, class_folders, limit, open_images, split
from .left_out import MAX_PIXELS, MAX_UNREADABLE_PERCENT, described

__all__ = [
    "MAX_PIXELS",
    "MAX_UNREADABLE_PERCENT",
    "Album",
    "Batch",
    "BatchStream",
    "Folders",
    "ImageRef",
    "ImageSet",
    "Loaded",
    "OpenFiles",
    "UnreadableImage",
    "class_folders",
    "described",
    "image_digest",
    "limit",
    "load_all",
    "load_batches",
    "open_images",
    "read_image",
    "split",
]
