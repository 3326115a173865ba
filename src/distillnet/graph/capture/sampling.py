"""Which rows, columns and channels of a map an index shows, where it shows whole ones.

Strided slices, flips, padding that repeats pixels, nearest-neighbour scaling and space-to-depth all
do: each channel that comes out is one channel of the map at some rows and columns.
"""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Sample", "samples"]

_MOST = 64  # samples that one rearrangement may be made of


@dataclass(frozen=True)
class Sample:
    """``channels`` of a map at ``rows`` and ``columns``, and where they go to: ``outputs``."""

    channels: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    outputs: tuple[int, ...]


def samples(index_chw: Tensor, shape: tuple[int, ...]) -> tuple[Sample, ...]:
    """The samples of a map of ``shape`` (C, H, W) that an index into its elements consists of.

    Empty where a channel shows more than rows and columns of one channel.

    >>> import torch
    >>> index = torch.arange(16).reshape(1, 4, 4)
    >>> samples(index[:, ::2, 1:3], (1, 4, 4))
    (Sample(channels=(0,), rows=(0, 2), columns=(1, 2), outputs=(0,)),)
    >>> samples(index.transpose(1, 2), (1, 4, 4))
    ()
    """
    _, height, width = shape
    channel = index_chw // (height * width)
    row, column = index_chw // width % height, index_chw % width
    whole = (
        (channel == channel[:, :1, :1]).all()
        and (row == row[:, :, :1]).all()
        and (column == column[:, :1]).all()
    )
    if not bool(whole):
        return ()
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for i in range(len(index_chw)):
        where = tuple(row[i, :, 0].tolist()), tuple(column[i, 0].tolist())
        places.setdefault(where, []).append(i)
    if len(places) > _MOST:
        return ()
    return tuple(
        Sample(tuple(channel[outputs, 0, 0].tolist()), rows, columns, tuple(outputs))
        for (rows, columns), outputs in places.items()
    )
