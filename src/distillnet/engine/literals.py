"""Numbers, texts and tables as C source."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["byte_text", "c_array", "c_comment", "c_float", "c_text"]

_PER_LINE = 64  # bytes of a string


def c_float(x: float) -> str:
    """A float32 constant."""
    if math.isinf(x):
        return "INFINITY" if x > 0 else "-INFINITY"
    text = repr(float(np.float32(x)))
    return text + "f"


def c_array(kind: str, name: str, values: Sequence[object], per_line: int = 16) -> str:
    """A constant table."""
    lines = [", ".join(map(str, values[i : i + per_line])) for i in range(0, len(values), per_line)]
    return f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(lines) + "};\n"


def byte_text(data: bytes) -> str:
    """Bytes as strings of octal digits, which compilers read far more quickly than numbers."""
    octal = np.array([b"\\%03o" % byte for byte in range(256)])
    codes = octal[np.frombuffer(data, np.uint8)].tobytes()
    size = 4 * _PER_LINE  # of four characters for a byte
    lines = b'"\n"'.join(codes[i : i + size] for i in range(0, len(codes), size))
    return '"' + lines.decode() + '"'


def c_text(value: str) -> str:
    """A C string literal; anything but printable ASCII as octal bytes."""
    out = "".join(
        chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in value.encode()
    )
    return f'"{out}"'


def c_comment(value: str) -> str:
    """What may stand in a comment: one short line that does not end it."""
    shown = value.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")
    return shown if len(shown) <= 80 else shown[:77] + "..."
