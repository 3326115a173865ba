"""Damage with a plan: bytes, and values of JSON, records of a zip, headers of safetensors."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["changed", "in_bytes", "in_json", "in_safetensors", "in_tensors", "in_text", "in_zip"]

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
)
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**63), 1e308, -0.0, 0.5, 300_000_000, "", "x",
    "\x00", "../..", "/etc/passwd", "\ud800", "a" * 5000, [], {}, [[]], {"": {}}, [1, 2], "NaN",
)  # fmt: skip


_CELLS = (b"", b"-1", b"999999999999", b"0x1", b"\xff\xfe", b"\xe2\x80\xa8", b'"', b"1e9", b"\r")


def in_bytes(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled or inserted; numbers that programs stumble over."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(out) + 1)
        n = draw.choice((1, 2, 4, 8, draw.randrange(1, 65)))
        kind = draw.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 2:
            del out[at : at + n]
        elif kind == 3:
            out[at:at] = out[at : at + n] * draw.choice((1, 2, 20))
        elif kind == 4:
            out[at:at] = draw.randbytes(n)
        elif kind == 5:
            form = draw.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            size = struct.calcsize(form)
            value = draw.choice(_NUMBERS) & (2 ** (8 * size) - 1)
            out[at : at + size] = struct.pack(form, value)
        else:
            del out[draw.randrange(len(out) + 1) :]
    return bytes(out)


def in_text(data: bytes, draw: random.Random) -> bytes:
    """Lines and cells changed, or bytes."""
    if draw.random() < 0.4:
        return in_bytes(data, draw)
    lines = data.split(b"\n")
    for _ in range(draw.choice((1, 2, 4))):
        i = draw.randrange(len(lines))
        cells = lines[i].split(b"\t")
        j = draw.randrange(len(cells))
        kind = draw.randrange(4)
        if kind == 0:
            lines.insert(i, draw.choice(lines))
            continue
        if kind == 1:
            cells += cells
        elif kind == 2:
            cells[j] = draw.choice(_CELLS)
        else:
            cells.insert(j, draw.choice(_CELLS))
        lines[i] = b"\t".join(cells)
    return b"\n".join(lines)


def in_json(data: bytes, draw: random.Random) -> bytes:
    """Values replaced, keys taken away, doubled or renamed, lists grown, deep nesting; or bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return in_bytes(data, draw)
    if draw.random() < 0.15:
        return in_bytes(data, draw)
    if draw.random() < 0.02:
        deep = draw.choice((50, 5_000, 200_000))
        return data[:-2] + b',"x":' + b"[" * deep + b"]" * deep + b"}"
    for _ in range(draw.choice((1, 1, 2, 4))):
        value = changed(value, draw)
    text = json.dumps(value)
    if draw.random() < 0.05:
        text = text.replace("0.", draw.choice(("NaN", "1e999", "-Infinity", "00.")), 1)
    return text.encode("utf-8", "surrogatepass")


def changed(value: Any, draw: random.Random) -> Any:
    """The value with one change somewhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, draw.choice(("x", "", "..", str(draw.choice(_NUMBERS)))): value[key]}
        return {**value, key: changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        kind = draw.randrange(6)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return [*value, value[at]] if draw.random() < 0.9 else value * 200
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw.random() < 0.5:
        return draw.choice((-value, value + 1, value * 1000, value - 1, float(value), value / 3))
    return draw.choice(_VALUES)


def in_zip(data: bytes, draw: random.Random, within: Mutator = in_json) -> bytes:
    """A record changed, added, renamed or compressed; or bytes of the archive."""
    if draw.random() < 0.3:
        return in_bytes(data, draw)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # noqa: BLE001 - it was damaged before
        return in_bytes(data, draw)
    if not records:
        return in_bytes(data, draw)
    at = draw.randrange(len(records))
    name, content = records[at]
    kind = draw.randrange(8)
    if kind == 0:
        del records[at]
    elif kind == 1:
        records.append((name.replace("weight", "other"), content))
    elif kind == 2:
        records[at] = (draw.choice(("../x", "/x", name + "/x", "", "\x00", name.upper())), content)
    else:
        change = within if content[:1] in (b"{", b"[") else in_bytes
        records[at] = (name, change(content, draw))
    method = draw.choice((zipfile.ZIP_STORED,) * 6 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in records:
            archive.writestr(name.strip("\0") or "x", content)
    return out.getvalue()


def in_safetensors(data: bytes, draw: random.Random) -> bytes:
    """The header's values, its length, or bytes."""
    if draw.random() < 0.4 or len(data) < 8:
        return in_bytes(data, draw)
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data):
        return in_bytes(data, draw)
    header = in_json(data[8 : 8 + length], draw)
    said = len(header) if draw.random() < 0.95 else draw.choice(_NUMBERS)
    return struct.pack("<Q", said) + header + data[8 + length :]


_FILLS = (float("nan"), float("inf"), -1.0, 0.0, 1e-40, 1e38, 3.4e38, -3e38, 127.0)
_TYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8,
    torch.int64, torch.bool,
)  # fmt: skip


def in_tensors(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file that is right as such: tensors gone, doubled, renamed, of other shapes,
    types or values; or damage as of any."""
    if draw.random() < 0.4:
        return in_safetensors(data, draw)
    try:
        tensors = load(data)
    except Exception:  # noqa: BLE001 - it was damaged before
        return in_safetensors(data, draw)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not tensors:
            break
        name = draw.choice(list(tensors))
        kind = draw.randrange(8)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[draw.choice(("x", "", "a/b", name + "#scale", name[:-1]))] = tensors[name]
        elif kind == 2:
            other = draw.choice(list(tensors))
            tensors[name], tensors[other] = tensors[other], tensors[name]
        else:
            tensors[name] = _other(tensors[name], draw)
    return save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})


def _other(tensor: Tensor, draw: random.Random) -> Tensor:
    kind = draw.randrange(6)
    if kind == 0:
        return tensor.to(draw.choice(_TYPES))
    if kind == 1:
        return tensor[: draw.randrange(len(tensor) + 1)] if tensor.ndim else tensor[None]
    if kind == 2:
        return torch.cat([tensor, tensor]) if tensor.ndim else tensor.reshape(1, 1)
    if kind == 3:
        return tensor.flatten() if draw.random() < 0.5 else tensor.transpose(0, -1)
    signed = tensor.dtype not in (torch.bool, torch.uint8)
    whole = draw.choice((0, 1, 127, *((-128, -1) if signed else ())))
    fill = torch.tensor(draw.choice(_FILLS) if tensor.is_floating_point() else whole)
    filled = fill.to(tensor.dtype).expand(tensor.shape)
    if kind == 4 or not tensor.numel():
        return filled
    return torch.where(torch.arange(tensor.numel()).reshape(tensor.shape) == 0, filled, tensor)
