"""What became of each of GoogLeNet's inception modules, as tables 1 and 2 of the paper have it."""

import math
import re
from collections.abc import Callable, Iterable
from statistics import fmean

from distillnet.cut.cost import Cost
from distillnet.job.distillation import Distillation
from distillnet.reproduce.paper import MODULES

__all__ = ["compression_of_modules", "macs_of_modules"]

_MODULE = re.compile(r"(?:^|\.)inception_?([345][a-e])\b")


def compression_of_modules(done: Distillation) -> dict[str, float]:
    """Neurons of each module's layers over those left (Eq. 16), the mean over its layers.

    Of the original at its own input size, so that a smaller input counts as well. A layer that is
    gone as a whole is left out of the mean, for its ratio is infinite.
    """
    ratios = {
        layer.site: math.prod(done.graph[layer.site].shape) / layer.neurons_kept
        for layer in done.layers
        if layer.neurons_kept
    }
    return _by_module(ratios, lambda site: ratios[site], fmean)


def macs_of_modules(cost: Cost) -> dict[str, float]:
    """MACs of each module, partial removal counted."""
    return _by_module(cost.layers, lambda name: cost.layers[name].macs_with_partial, math.fsum)


def _by_module(
    names: Iterable[str], value: Callable[[str], float], join: Callable[[list[float]], float]
) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for name in names:
        if match := _MODULE.search(name):
            found.setdefault(match[1], []).append(value(name))
    return {module: join(found[module]) for module in MODULES if module in found}
