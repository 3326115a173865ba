"""Which places of an image are sampled, and how rows of numbers lie in a file.

*Which places* follows from the image's content alone, and so does which samples of a class are
kept: those with the smallest keys. So it does not matter in which order, in how many parts or on
how many machines images are looked at, and the samples of two atlases together are those of their
union (bottom-k sampling: Cohen and Kaplan, Summarizing data using bottom-k sketches, 2007).

*Rows* are kept in a byte a number: a sign and the root of the share of the row's largest,

    q = sign(x) round(127 sqrt(|x| / s)),   x = sign(q) (q / 127)^2 s,   s = max |x|

which is off by 0.8 % at most of what is large, and by less of s where it is small.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack_rows", "places_of", "unpack_rows"]

_LEVELS = 127
_BYTES = 16  # of a hash: a key of 8, two places of 4


def places_of(digests: Sequence[bytes], per_image: int) -> tuple[Tensor, Tensor]:
    """Keys (N, P) int64 and places (N, P, 2) in shares of 2^31 of images by their content.

    >>> keys, places = places_of([b"one", b"two"], 3)
    >>> keys.shape, places.shape, torch.equal(keys[1:], places_of([b"two"], 3)[0])
    (torch.Size([2, 3]), torch.Size([2, 3, 2]), True)
    """
    drawn = b"".join(
        hashlib.blake2b(digest + number.to_bytes(4, "little"), digest_size=_BYTES).digest()
        for digest in digests
        for number in range(per_image)
    )
    shape = len(digests), per_image
    keys = np.frombuffer(drawn, "<u8").reshape(*shape, 2)[..., 0] >> 1
    places = np.frombuffer(drawn, "<u4").reshape(*shape, 4)[..., 2:] >> 1
    return torch.from_numpy(keys.astype(np.int64)), torch.from_numpy(places.astype(np.int64))


def pack_rows(rows_rd: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8 (R, D) and the largest of each, float32 (R,).

    >>> unpack_rows(*pack_rows(torch.tensor([[0.0, -4.0, 1.0]]))).round(decimals=2)
    tensor([[ 0.0000, -4.0000,  1.0200]])
    """
    rows_rd = rows_rd.float()
    largest = rows_rd.abs().amax(1)
    share = rows_rd.abs() / largest.clamp_min(1e-30)[:, None]
    return (rows_rd.sign() * (_LEVELS * share.sqrt()).round()).to(torch.int8), largest


def unpack_rows(packed_rd: Tensor, largest_r: Tensor) -> Tensor:
    """Rows (R, D) float32 that ``pack_rows`` packed."""
    rows = packed_rd.float()
    return rows.mul_(rows.abs()).mul_((largest_r / _LEVELS**2)[:, None])
