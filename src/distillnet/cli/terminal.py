"""What reaches the terminal: text, whatever a file, a folder or a class is called."""

import os
import re
import sys

__all__ = ["open_streams", "printable"]

# Control characters but tab and line feed, those that turn the direction of writing, and bytes of
# file names that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text without what a terminal would obey; it is shown as Python writes it.

    >>> printable("a \x1b[31m name\n")
    'a \\x1b[31m name\n'
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def open_streams() -> None:
    """Give the process the standard streams that it may have been started without.

    A shell's ``>&-`` leaves none, and the next file that is opened would take its place: what a
    library prints would end in a result.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # tests put others in their place
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
