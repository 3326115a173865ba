"""Images that are left out: kinds that are not read, those too large, how many may be damaged."""

from collections.abc import Mapping

__all__ = ["MAX_PIXELS", "MAX_UNREADABLE_PERCENT", "OTHER_SUFFIXES", "described"]

# Of a set. One damaged file in twenty is no reason to stop; a damaged disk is.
MAX_UNREADABLE_PERCENT = 5.0

# Width times height: more than the photos of nearly all phones and cameras have, 192 MB when
# decoded. Without a limit, a file of 500 kB takes 15 seconds and gigabytes.
MAX_PIXELS = 64_000_000

# Images all the same, which a user is told of: a phone's photos are HEIC as often as not.
OTHER_SUFFIXES = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf"),
    *(".psd", ".raf", ".raw", ".rw2", ".svg", ".tga"),
)


def described(left_out: Mapping[str, int]) -> str:
    """Files that are left out, in words.

    >>> described({".heic": 12, ".svg": 1})
    '12 .heic files and 1 .svg file'
    """
    return " and ".join(f"{n} {s} file{'s' if n > 1 else ''}" for s, n in left_out.items())
