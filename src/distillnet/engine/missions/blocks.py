"""A mission as a block of bytes that compiled code loads: what ``templates/load_mission.c`` reads.

All numbers are little-endian and none is aligned. Of 2 bytes unless it says otherwise:

    magic "DNMB" (4), format (4), bytes in all (4), CRC-32 of what follows (4),
    layout (4), weights (4), serial (8), slots (4), outputs (4), bytes of text (4)
    outputs: positions among the network's scores
    for each slot: 0, all of it is computed; or 1 and
      of a convolution: spans (4) and words (4) of the slot, and for each strip: 0 where all of it
        is computed, else 1, spans (4), whether words follow, (row, x0, x1) of each span, words
      of a mask: words
    text: name and classes, UTF-8, each with a zero behind it

Words have a bit for each channel of a block of 16 at a place, as in ``spans``. A block cannot make
the code read or write where it should not: strips and weights are the code's own, and all else is
checked. A CRC-32 tells damage, not intent: who may send missions is for signatures to tell
(``missions.packages``), before a block is made.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.missions.layout import Layout, SlotLayout
from distillnet.engine.spans import active_strips, bit_words, gap_of
from distillnet.engine.steps import Strip
from distillnet.errors import InputError

__all__ = ["mission_block"]

_MAGIC = b"DNMB"
_FORMAT = 1

Keep = NDArray[np.bool_]


def mission_block(
    layout: Layout,
    name: str,
    classes: Sequence[str],
    outputs: Sequence[int],
    keep: Mapping[str, Keep],
    serial: int,
) -> bytes:
    """A mission for a program, by its layout.

    Args:
        classes: names of ``outputs``, positions among the network's scores.
        keep: by site, bool (C, H, W) or (F,); a site without one is computed whole.
        serial: code that holds a mission takes blocks of larger numbers only.

    Raises:
        InputError: it masks what the program cannot, or asks for scores that there are not.
    """
    wrong = [o for o in outputs if not 0 <= o < layout.n_scores]
    if wrong or not outputs or len(classes) != len(outputs):
        raise InputError(
            f"found a mission {name!r} of {len(classes)} names and the scores {list(outputs)}; "
            f"expected a name for each, of {layout.n_scores} scores"
        )
    slots = {slot.site: slot for slot in layout.slots if slot.site is not None}
    for site, map_ in keep.items():
        if site not in slots:
            if not map_.all():
                raise InputError(
                    f"mission {name!r} masks {site!r}, where this code has no mask; expected a "
                    "mission of its network. Export the folder from a run of it"
                )
        elif map_.size != np.prod(slots[site].shape):
            raise InputError(
                f"mission {name!r} has a bitmap {map_.shape} for {site!r}, where this code has "
                f"{slots[site].shape}; expected a mission of its network, at its input size"
            )
    scores = np.zeros(layout.n_scores, bool)
    scores[list(outputs)] = True
    known = {**keep, layout.scores: scores & keep.get(layout.scores, scores).reshape(-1)}
    body = b"".join(
        _slot(slot, known.get(slot.site) if slot.site is not None else None)
        for slot in layout.slots
    )
    text = b"".join(word.replace("\0", " ").encode() + b"\0" for word in (name, *classes))
    content = (
        struct.pack("<IIQIII", layout.identity, layout.weights_id, serial, len(layout.slots),
                    len(outputs), len(text))
        + np.asarray(outputs, "<u2").tobytes() + body + text
    )  # fmt: skip
    return struct.pack("<4sIII", _MAGIC, _FORMAT, 16 + len(content), zlib.crc32(content)) + content


def _slot(slot: SlotLayout, keep: Keep | None) -> bytes:
    if keep is None or keep.all():
        return struct.pack("<H", 0)
    map_: Keep = keep.reshape(slot.shape[0], -1)
    if slot.order is not None:
        map_ = map_[slot.order]
    map_ = map_.reshape(slot.shape)
    if slot.kernel == "mask":
        return struct.pack("<H", 1) + bit_words(map_).astype("<u2").tobytes()
    strips = [Strip(range(first, first + n), 0, 0) for first, n in slot.strips]
    spans = words = 0
    parts = []
    for part in active_strips(strips, map_, gap_of(slot.kernel)):
        if part.spans is None:
            parts.append(struct.pack("<H", 0))
            continue
        spans += len(part.spans)
        words += 0 if part.bits is None else len(part.bits)
        parts.append(struct.pack("<HIH", 1, len(part.spans), part.bits is not None))
        parts += [struct.pack("<HHH", s.y, s.x0, s.x1) for s in part.spans]
        if part.bits is not None:
            parts.append(part.bits.astype("<u2").tobytes())
    return struct.pack("<HII", 1, spans, words) + b"".join(parts)
