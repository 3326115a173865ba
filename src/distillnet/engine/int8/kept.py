"""Parameters as they are, until it is known which whole numbers stand for them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.packing import blocks_at_once
from distillnet.engine.steps import BLOCK, Strip

__all__ = ["Kept", "KeptFilters"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class KeptFilters:
    """A layer's filters (M, H, W, C) and biases (M,)."""

    weight_mkkc: Floats
    bias_m: Floats


@dataclass
class Kept:
    """The parameters of a lowering in their order; steps name them by their position.

    Attributes:
        block: output channels in a block of weights.
    """

    block: int
    values: list[Floats] = field(default_factory=list)
    filters: dict[int, KeptFilters] = field(default_factory=dict)

    def add(self, values: NDArray[np.floating]) -> int:
        self.values.append(np.asarray(values, np.float64))
        return len(self.values) - 1

    def add_filters(self, weight_mkkc: NDArray[np.floating], bias: NDArray[np.floating]) -> int:
        """Those of a depthwise layer, (M, 1, H, W): brought into the order of all others."""
        at = self.add(np.zeros(0))
        self.filters[at] = KeptFilters(
            np.asarray(weight_mkkc, np.float64).transpose(0, 2, 3, 1), np.asarray(bias, np.float64)
        )
        return at

    def strips(
        self,
        weight_mkkc: NDArray[np.floating],
        bias: NDArray[np.floating],
        groups: int,
        places: int,
    ) -> tuple[Strip, ...]:
        """The strips of a convolution on maps of so many places, all with its position.

        They are as wide for all targets: narrower ones skip a little more, but each has its spans,
        which take more flash than weights on ragged maps.
        """
        at = self.add(np.zeros(0))
        self.filters[at] = KeptFilters(
            np.asarray(weight_mkkc, np.float64), np.asarray(bias, np.float64)
        )
        count, source = len(bias) // groups, weight_mkkc.shape[-1]
        result = []
        for g in range(groups):
            first = 0
            for blocks in blocks_at_once(places, -(-count // BLOCK)):
                end = min(first + blocks * BLOCK, count)
                result.append(Strip(range(g * count + first, g * count + end), g * source, at))
                first = end
        return tuple(result)

    def array(self) -> NDArray[np.float32]:
        """Nothing yet."""
        return np.zeros(0, np.float32)
