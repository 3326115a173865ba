"""What a mission brings of its own in place of shared weights, as the kernels read it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.packing import Weights
from distillnet.engine.spans import ActiveStrip
from distillnet.engine.steps import BLOCK, Refit

__all__ = ["OwnWeights", "own_biases", "own_weights"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OwnWeights:
    """A layer's weights, blocks of its strips one behind the other, of live taps only.

    Attributes:
        begins: where each strip's begin; a strip that computes nothing has none, and 0 here.
        taps: of a filter.
    """

    values: Floats
    begins: tuple[int, ...]
    taps: int


def own_weights(
    active: Sequence[ActiveStrip], refit: Refit, live: NDArray[np.bool_] | None
) -> OwnWeights:
    """Pack a layer's refitted weights for the strips that a mission computes."""
    assert refit.weight is not None
    weight = refit.weight if live is None else refit.weight[:, live]
    store = Weights()
    begins = []
    for part in active:
        rows = slice(part.strip.channels.start, part.strip.channels.stop)
        idle = part.spans is not None and not part.spans
        begins.append(0 if idle else store.add_filters(weight[rows], refit.bias[rows]))
    values = np.concatenate([np.zeros(0, np.float32), *store.parts])
    return OwnWeights(values, tuple(begins), weight.shape[1])


def own_biases(active: Sequence[ActiveStrip], bias: Floats) -> Floats:
    """Biases for all blocks of all strips in turn, zeros behind the last channel of each."""
    parts = []
    for part in active:
        own = bias[part.strip.channels.start : part.strip.channels.stop]
        parts.append(np.pad(own, (0, -len(own) % BLOCK)))
    return np.concatenate(parts).astype(np.float32)
