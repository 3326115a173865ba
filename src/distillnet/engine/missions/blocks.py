"""A mission as a block of bytes that compiled code loads: what ``templates/load_mission.c`` reads.

All numbers are little-endian and none is aligned. Of 2 bytes unless it says otherwise:

    magic "DNMB" (4), format (4), bytes in all (4), CRC-32 of what follows (4),
    layout (4), weights (4), serial (8), slots (4), outputs (4), bytes of text (4)
    outputs: positions among the network's scores
    for each slot: what it has, the sum of
      1, it is not computed whole:
        of a convolution: spans (4) and words (4) of the slot, and for each strip: 0 where all of it
          is computed, else 1, spans (4), whether words follow, (row, x0, x1) of each span, words
        of a mask: words
      2, not all taps count: runs (4), and of each: first tap (4), taps (4), where its weights lie
        in a filter, in taps (4)
      4, weights of its own, float32: for each block of 16 channels of each strip that computes
        anything: biases [16], then [tap that counts][16]
      8, biases of its own over shared weights, float32 [16]: for each block of all strips
    text: name and classes, UTF-8, each with a zero behind it

So a mission that only has other bitmaps takes few bytes; with other biases, and a head of its own,
4 bytes for each output of a layer more; and one whose layers were all refitted as much as its
compact network does. Nothing is stored of what it does not compute.

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
from distillnet.engine.missions.refits import (
    LayerRefit,
    in_program_order,
    own_biases,
    own_weights,
)
from distillnet.engine.spans import ActiveStrip, active_strips, bit_words, gap_of
from distillnet.engine.steps import Strip
from distillnet.engine.taps import Segment, live_of, live_segments
from distillnet.errors import InputError

__all__ = ["FORMAT", "mission_block"]

_MAGIC = b"DNMB"
FORMAT = 2

_SPANS, _SEGMENTS, _WEIGHTS, _BIASES = 1, 2, 4, 8

Keep = NDArray[np.bool_]


def mission_block(
    layout: Layout,
    name: str,
    classes: Sequence[str],
    outputs: Sequence[int],
    keep: Mapping[str, Keep],
    serial: int,
    *,
    refits: Mapping[str, LayerRefit] | None = None,
    alive: Mapping[str, Keep] | None = None,
    needs: Mapping[str, Keep] | None = None,
    slots: Sequence[SlotLayout] | None = None,
) -> bytes:
    """A mission for a program, by its layout.

    Args:
        classes: names of ``outputs``, positions among the network's scores.
        keep: by site, bool (C, H, W) or (F,); a site without one is computed whole.
        serial: code that holds a mission takes blocks of larger numbers only.
        refits: by layer, parameters that are not the shared ones.
        alive: by layer, bool (C,) or (F,), which of its inputs are not always zero; a layer without
            one reads all of them.
        needs: by layer, bool (C, H, W) or (F,), what anybody needs of its outputs, for those that
            no site masks.
        slots: those of the layout, in other orders (``arranging``).

    Raises:
        InputError: it masks what the program cannot, asks for scores that there are not, or has
            weights for a layer that this code has none of, or of another shape.
    """
    wrong = [o for o in outputs if not 0 <= o < layout.n_scores]
    if wrong or not outputs or len(classes) != len(outputs):
        raise InputError(
            f"found a mission {name!r} of {len(classes)} names and the scores {list(outputs)}; "
            f"expected a name for each, of {layout.n_scores} scores"
        )
    slots = layout.slots if slots is None else slots
    by_site = {slot.site: slot for slot in slots if slot.site is not None}
    for site, map_ in keep.items():
        if site not in by_site:
            if not map_.all():
                raise InputError(
                    f"mission {name!r} masks {site!r}, where this code has no mask; expected a "
                    "mission of its network. Export the folder from a run of it"
                )
        elif map_.size != np.prod(by_site[site].shape):
            raise InputError(
                f"mission {name!r} has a bitmap {map_.shape} for {site!r}, where this code has "
                f"{by_site[site].shape}; expected a mission of its network, at its input size"
            )
    refits = dict(refits or {})
    known_layers = {slot.layer: slot for slot in slots if slot.layer is not None}
    for layer, refit in refits.items():
        _check_refit(name, layer, refit, known_layers.get(layer))
    scores = np.zeros(layout.n_scores, bool)
    scores[list(outputs)] = True
    known = {**keep, layout.scores: scores & keep.get(layout.scores, scores).reshape(-1)}
    body = b"".join(
        _slot(
            slot,
            (needs or {}).get(slot.layer or "") if slot.site is None else known.get(slot.site),
            refits.get(slot.layer or ""),
            (alive or {}).get(slot.layer or ""),
        )
        for slot in slots
    )
    text = b"".join(word.replace("\0", " ").encode() + b"\0" for word in (name, *classes))
    content = (
        struct.pack("<IIQIII", layout.identity, layout.weights_id, serial, len(layout.slots),
                    len(outputs), len(text))
        + np.asarray(outputs, "<u2").tobytes() + body + text
    )  # fmt: skip
    return struct.pack("<4sIII", _MAGIC, FORMAT, 16 + len(content), zlib.crc32(content)) + content


def _check_refit(name: str, layer: str, refit: LayerRefit, slot: SlotLayout | None) -> None:
    if slot is None:
        raise InputError(
            f"mission {name!r} has weights of its own for {layer!r}, where this code has none that "
            "missions may replace; export the mission as C of its own"
        )
    want = slot.shape[0] * slot.taps
    have = want if refit.weight is None else refit.weight.size
    if len(refit.bias) != slot.shape[0] or have != want:
        raise InputError(
            f"mission {name!r} has {len(refit.bias)} biases and {have:,} weights for {layer!r}, "
            f"where this code has {slot.shape[0]} and {want:,}; expected a mission of its network"
        )


def _slot(
    slot: SlotLayout, keep: Keep | None, refit: LayerRefit | None, alive: Keep | None
) -> bytes:
    """What a block has of a slot."""
    parts = _SPANS * (keep is not None and not keep.all())
    body = []
    map_: Keep = np.ones(slot.shape, bool)
    if parts:
        assert keep is not None
        flat: Keep = keep.reshape(slot.shape[0], -1)
        map_ = (flat if slot.order is None else flat[slot.order]).reshape(slot.shape)
    if slot.kernel == "mask":
        words = bit_words(map_).astype("<u2").tobytes() if parts else b""
        return struct.pack("<H", parts) + words
    strips = [Strip(range(first, first + n), 0, 0) for first, n in slot.strips]
    active = (
        active_strips(strips, map_, gap_of(slot.kernel))
        if parts
        else tuple(ActiveStrip(strip) for strip in strips)
    )
    if parts:
        body.append(_spans(active))
    columns = None if slot.columns is None else np.array(slot.columns)
    live = None
    if slot.layer is not None and alive is not None:
        live = live_of(alive, slot.size, slot.source, columns)
    own = refit is not None and refit.weight is not None
    if live is not None:
        parts |= _SEGMENTS
        whole = [Segment(w, w, slot.run) for w in range(0, slot.taps, slot.run)]
        runs = live_segments(whole, live, packed=own) or (Segment(0, 0, 0),)
        body.append(struct.pack("<I", len(runs)))
        body += [struct.pack("<III", r.x, r.n, r.w) for r in runs]
    if refit is not None:
        rows = None if slot.order is None else np.array(slot.order)
        mine = in_program_order(refit, slot.size, slot.source, rows, columns)
        values = own_weights(active, mine, live).values if own else own_biases(active, mine.bias)
        parts |= _WEIGHTS if own else _BIASES
        body.append(values.astype("<f4").tobytes())
    return struct.pack("<H", parts) + b"".join(body)


def _spans(active: Sequence[ActiveStrip]) -> bytes:
    spans = words = 0
    parts = []
    for part in active:
        if part.spans is None:
            parts.append(struct.pack("<H", 0))
            continue
        spans += len(part.spans)
        words += 0 if part.bits is None else len(part.bits)
        parts.append(struct.pack("<HIH", 1, len(part.spans), part.bits is not None))
        parts += [struct.pack("<HHH", s.y, s.x0, s.x1) for s in part.spans]
        if part.bits is not None:
            parts.append(part.bits.astype("<u2").tobytes())
    return struct.pack("<II", spans, words) + b"".join(parts)
