"""A layer's filters in whole numbers: those that missions share, and those of a mission's own.

One scale for each tensor serves all missions, and so does the shift of a layer's sums: what a
mission may have of its own are filters, their steps and multipliers, and biases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.int8.fixed import HIGHEST, Scale, in_high_word
from distillnet.engine.int8.kept import KeptFilters
from distillnet.engine.int8.scales import filter_steps
from distillnet.engine.steps import MissionBits, Step
from distillnet.errors import UnsupportedError

__all__ = ["Filters", "KeptLayer", "kept_layer", "whole_layer"]

_MOST_SUM = 2**31 - 1
Whole = NDArray[np.int32]


@dataclass(frozen=True)
class Filters:
    """A layer in whole numbers: filters (M, H, W, C), and by filter a bias and a multiplier.

    Biases and sums are in units of filter times input. What a multiplier does,
    ``fixed.in_high_word`` tells.

    Attributes:
        x_zero: the byte that stands for zero in the input.
        units: for a layer of scores, what 1 in a sum stands for, float32 (M,).
    """

    weight_mkkc: NDArray[np.int8]
    bias_m: Whole
    multiplier_m: Whole
    shift: int
    x_zero: int
    units: NDArray[np.float32]

    def of(self, some: slice) -> "Filters":
        """The filters of some channels."""
        return replace(
            self, weight_mkkc=self.weight_mkkc[some], bias_m=self.bias_m[some],
            multiplier_m=self.multiplier_m[some], units=self.units[some],
        )  # fmt: skip

    def folded(self, computed: NDArray[np.bool_] | None = None) -> Whole:
        """Biases (M,) for sums over bytes from whose values no zero was taken.

        Args:
            computed: which taps (taps,) are summed up; None: all.
        """
        taps = self.weight_mkkc.reshape(len(self.bias_m), -1).astype(np.int64)
        sums = (taps if computed is None else taps[:, computed]).sum(1)
        return (self.bias_m - self.x_zero * sums).astype(np.int32)


@dataclass(frozen=True)
class KeptLayer:
    """A layer as it is, until it is known which whole numbers stand for it.

    Attributes:
        biases: by mission that has its own over the shared filters.
        own: by mission that has filters and biases of its own.
    """

    shared: KeptFilters
    biases: Mapping[str, NDArray[np.float64]]
    own: Mapping[str, KeptFilters]

    @property
    def all(self) -> list[KeptFilters]:
        """Whatever has steps of its own; of shared filters, each with its widest bias."""
        widest = np.abs(np.stack([self.shared.bias_m, *self.biases.values()])).max(0)
        return [replace(self.shared, bias_m=widest), *self.own.values()]


def kept_layer(shared: KeptFilters, step: Step, missions: Sequence[MissionBits]) -> KeptLayer:
    """A layer with what missions have in its place."""
    biases: dict[str, NDArray[np.float64]] = {}
    own: dict[str, KeptFilters] = {}
    for mission in missions:
        refit = mission.refits.get(step.slot or "")
        if refit is None:
            continue
        bias = np.asarray(refit.bias, np.float64)
        if refit.weight is None:
            biases[mission.name] = bias
            continue
        weight = np.array(refit.weight, np.float64)
        if (live := mission.live.get(step.slot or "")) is not None:
            weight[:, ~live] = 0.0  # which meet zeros, and must not make the steps coarser
        own[mission.name] = KeptFilters(weight.reshape(shared.weight_mkkc.shape), bias)
    return KeptLayer(shared, biases, own)


def whole_layer(
    step: Step, layer: KeptLayer, x: Scale, y: Scale | None
) -> tuple[Filters, dict[str, Filters]]:
    """A layer's shared filters, and those of missions, by name.

    Args:
        y: of the output; None where sums leave as scores in float32.

    Raises:
        UnsupportedError: sums may not fit into 32 bits.
    """
    kept = layer.all
    steps = [filter_steps(one, x.step) for one in kept]
    factors = x.step * np.stack(steps)
    multipliers, shift = np.zeros(factors.shape, np.int32), 0
    if y is not None:
        multipliers, shift = in_high_word(factors / y.step)

    def filters(at: int, one: KeptFilters, bias_m: NDArray[np.float64]) -> Filters:
        whole = np.rint(one.weight_mkkc / steps[at].reshape(-1, 1, 1, 1)).astype(np.int8)
        bias = np.rint(bias_m / factors[at]).astype(np.int64)
        _check_sums(step, whole, bias)
        units = factors[at].astype(np.float32) if y is None else np.zeros(0, np.float32)
        return Filters(whole, bias.astype(np.int32), multipliers[at], shift, x.zero, units)

    shared = filters(0, kept[0], layer.shared.bias_m)
    own = {name: filters(0, kept[0], bias) for name, bias in layer.biases.items()}
    for at, (name, one) in enumerate(layer.own.items(), 1):
        own[name] = filters(at, one, one.bias_m)
    return shared, own


def _check_sums(step: Step, whole: NDArray[np.int8], bias: NDArray[np.int64]) -> None:
    sums = np.abs(whole.astype(np.int64)).reshape(len(bias), -1).sum(1) * HIGHEST + np.abs(bias)
    if int(sums.max(initial=0)) > _MOST_SUM:
        raise UnsupportedError(
            f"{step.name!r} adds up {whole[0].size} products of bytes, which may not fit into 32 "
            "bits; expected fewer. Export without --int8, or with --format onnx"
        )
