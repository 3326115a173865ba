"""What tells an image from any other on this machine: for lists of which images were used."""

import hashlib
import os
from dataclasses import replace

from distillnet.images.files import ImageRef
from distillnet.images.folders import ImageSet

__all__ = ["files_digest", "image_key", "key_digest"]


def image_key(ref: ImageRef) -> str:
    """Its path, and where a file holds many its place in that; one image has one key."""
    return str(replace(ref, path=ref.path.resolve()))


def key_digest(ref: ImageRef) -> str:
    """A hash of ``image_key``, which tells no name: 128 bits in hexadecimal."""
    return hashlib.blake2b(os.fsencode(image_key(ref)), digest_size=16).hexdigest()


def files_digest(images: ImageSet) -> str:
    """A checksum of which images these are, and whether their files have changed."""
    digest = hashlib.sha256()
    for ref in images.refs:
        try:
            found = ref.path.stat()
            seen = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:  # it is counted among the unreadable ones, if it stays so
            seen = "-"
        digest.update(os.fsencode(f"{image_key(ref)} {seen}\n"))
    return digest.hexdigest()
