"""Where a program can be masked: what makes a mission for it that it does not know yet.

``layout.json`` in a folder of C. Its CRC-32 stands in the code, and in every block that is made by
it, so that a block meets the program that it was made for, or none.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from distillnet.engine.emit import Tables
from distillnet.engine.missions.refits import columns_of, may_be_refitted
from distillnet.engine.steps import Program, Step, Strip
from distillnet.errors import InputError
from distillnet.files.documents import Document, Sha256, Side, Text, read_document
from distillnet.files.regular import read_regular
from distillnet.graph import Graph

__all__ = ["LAYOUT", "Layout", "SlotLayout", "layout_of", "read_layout"]

LAYOUT = "layout.json"
_FORMAT = 2
_AT_MOST = 64 * 2**20
_REMEDY = "export it again with --loadable"

_Channel = Annotated[int, Meta(ge=0, lt=2**20)]
_Strip = tuple[_Channel, Annotated[int, Meta(ge=1, le=2**20)]]  # first channel, how many
_Crc = Annotated[int, Meta(ge=0, lt=2**32)]


class SlotLayout(Document, frozen=True):
    """A layer's output that missions may mask.

    Attributes:
        site: whose keep map it takes; None where nothing but a mission at hand asked for it.
        order: new position to channel; None where they stand as in the network.
        layer: whose output it is, where missions may bring weights of their own.
        size: of the layer's kernel; that of a linear layer is the size of the map that it reads.
        source: channels that a filter reads; ``columns`` their order, as ``order``.
        run: how many taps lie side by side.
    """

    site: Text | None
    kernel: Literal["conv", "depthwise", "mask"]
    shape: tuple[Annotated[int, Meta(ge=1, le=2**24)], Side, Side]
    strips: list[_Strip]
    order: list[_Channel] | None
    layer: Text | None
    size: tuple[Side, Side]
    source: Annotated[int, Meta(ge=0, le=2**20)]
    columns: list[_Channel] | None
    run: Annotated[int, Meta(ge=0, le=2**24)]

    def __post_init__(self) -> None:
        channels = self.shape[0]
        if self.order is not None and sorted(self.order) != list(range(channels)):
            raise ValueError(f"an order that is none of {channels} channels")
        if any(first + n > channels for first, n in self.strips):
            raise ValueError(f"a strip beyond {channels} channels")
        if self.columns is not None and sorted(self.columns) != list(range(self.source)):
            raise ValueError(f"an order that is none of {self.source} channels")
        if self.layer is not None and (not self.run or self.taps % self.run):
            raise ValueError(f"runs of {self.run} of {self.taps} taps")
        if (self.kernel == "mask") == bool(self.strips):
            raise ValueError(f"{len(self.strips)} strips of a {self.kernel}")

    @property
    def taps(self) -> int:
        """Of a filter."""
        return self.size[0] * self.size[1] * self.source


class _Document(Document, frozen=True):
    format: int
    weights_id: _Crc
    original_sha256: Sha256 | None
    input: tuple[Annotated[int, Meta(ge=1, le=4096)], Side, Side]
    scores: Text
    n_scores: Annotated[int, Meta(ge=1, le=2**16)]
    slots: list[SlotLayout]


@dataclass(frozen=True)
class Layout:
    """All slots of a program, in its order.

    Attributes:
        weights_id: CRC-32 of ``weights.bin``.
        original_sha256: of the weights that the network was made of, as runs have it.
        scores: the site of the network's scores.
    """

    weights_id: int
    original_sha256: str | None
    input: tuple[int, int, int]
    scores: str
    n_scores: int
    slots: tuple[SlotLayout, ...]

    def json(self) -> bytes:
        """As the file holds it."""
        document = _Document(
            _FORMAT, self.weights_id, self.original_sha256, self.input, self.scores, self.n_scores,
            list(self.slots),
        )  # fmt: skip
        return msgspec.json.encode(document) + b"\n"

    @property
    def identity(self) -> int:
        """CRC-32 of the file."""
        return zlib.crc32(self.json())


def layout_of(
    program: Program,
    graph: Graph,
    site_of: Mapping[str, str],
    orders: Mapping[str, NDArray[np.int64]],
    scores: str,
    n_scores: int,
) -> Layout:
    """The layout of a compiled program.

    Args:
        site_of: by slot; those without are of missions at hand.
        graph: what was compiled; ``orders`` by node, of those whose channels have another order.
    """
    slots = tuple(
        SlotLayout(
            site_of.get(name),
            program.steps[slot.step].kernel,  # type: ignore[arg-type]
            slot.shape,
            [(s.channels.start, len(s.channels)) for s in _strips(program.steps[slot.step])],
            orders[name].tolist() if name in orders else None,
            *_layer(program, program.steps[slot.step], graph, orders),
        )
        for name, slot in program.slots.items()
    )
    weights = zlib.crc32(program.weights.astype("<f4").tobytes())
    return Layout(weights, None, program.places[program.input].shape, scores, n_scores, slots)


def _layer(
    program: Program, step: Step, graph: Graph, orders: Mapping[str, NDArray[np.int64]]
) -> tuple[str | None, tuple[int, int], int, list[int] | None, int]:
    """Of a slot: layer, size, source, columns and run; None and nothing where weights stay."""
    if not may_be_refitted(step, graph):
        return None, (1, 1), 0, None, 0
    columns = columns_of(step, graph, orders)
    *_, run = Tables(program).runs(step)
    return (
        step.name, tuple(step.settings["kernel"]), step.settings["source"],
        None if columns is None else columns.tolist(), run,
    )  # fmt: skip


def _strips(step: Step) -> tuple[Strip, ...]:
    return () if step.kernel == "mask" else step.strips


def read_layout(folder: Path) -> Layout:
    """The layout of a folder that ``export --format c --switchable --loadable`` wrote.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / LAYOUT
    if not path.is_file():
        raise InputError(
            f"{folder} has no {LAYOUT}, so its code takes no missions later; {_REMEDY}"
        )
    found = read_document(path, _Document, _REMEDY, format_=_FORMAT, at_most=_AT_MOST)
    layout = Layout(
        found.weights_id, found.original_sha256, found.input, found.scores, found.n_scores,
        tuple(found.slots),
    )  # fmt: skip
    if layout.json() != read_regular(path, _AT_MOST):
        raise InputError(f"{path} is not as it was written; {_REMEDY}")
    return layout
