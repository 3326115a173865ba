"""Which bytes stand for which numbers: one scale for all that has to be the same bytes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.int8.calibration import Ranges
from distillnet.engine.int8.fixed import Scale
from distillnet.engine.int8.kept import KeptFilters
from distillnet.engine.lower import Lowered
from distillnet.engine.steps import Program, Step

__all__ = [
    "border_readers",
    "filter_steps",
    "scales_of",
]

# Kernels whose output bytes are input bytes, or zero.
_SAME = frozenset({"max_pool", "adaptive_max", "flatten", "sample", "mask"})
_WINDOWS = frozenset({"conv", "depthwise", "conv_scores"})
_POOLS = frozenset({"max_pool", "avg_pool"})
_LARGEST = 127  # of a weight
_LARGEST_BIAS = 2.0**28  # in units of a sum, so that sums stay within 32 bits
_LARGEST_FACTOR = 0.2499  # of a sum on its way to a byte


def filter_steps(filters: KeptFilters, scale: float) -> NDArray[np.float64]:
    """What 1 in each filter's whole numbers stands for, (M,), where inputs come in steps of scale.

    A filter that is nearly nothing beside its bias is told in coarser steps, or the bias would not
    fit.
    """
    largest = np.abs(filters.weight_mkkc).reshape(len(filters.bias_m), -1).max(1, initial=0.0)
    least = np.abs(filters.bias_m) / (scale * _LARGEST_BIAS)
    steps: NDArray[np.float64] = np.maximum(np.maximum(largest / _LARGEST, least), 1e-30)
    return steps


class _Groups:
    """Names of values that share a scale (union-find)."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        above = self.parent.setdefault(name, name)
        while above != self.parent[above]:
            above = self.parent[above]
        self.parent[name] = above
        return above

    def join(self, a: str, b: str) -> None:
        self.parent[self.of(a)] = self.of(b)


def scales_of(
    low: Lowered, program: Program, ranges: Ranges, filters: Mapping[str, Sequence[KeptFilters]]
) -> dict[str, Scale]:
    """The scale of every value that a step reads or writes in bytes.

    Args:
        filters: by step's name, all that are multiplied with its input by any mission.
    """
    groups = _groups(low, program)
    found: dict[str, tuple[float, float]] = {}
    for step in program.steps:
        if step.writes in ranges and step.kernel != "border":
            group, (least, most) = groups.of(step.writes), ranges[step.writes]
            old = found.get(group, (0.0, 0.0))
            found[group] = min(old[0], least), max(old[1], most)
    for name in low.concats:  # all of whose parts are copied into it
        found.setdefault(groups.of(name), ranges[name])
    scales = {group: Scale.of(*bounds) for group, bounds in found.items()}
    while _coarsen(program.steps, scales, groups, filters):
        pass
    return {name: scales[groups.of(name)] for name in program.places if groups.of(name) in scales}


def border_readers(program: Program, buffer: str) -> list[str]:
    """The values that are read with the zeros around a buffer.

    Windows of layers reach into them; pools stay within the map, unless padding is part of that.
    """
    found = []
    for step in program.steps:
        if not step.reads or program.places[step.reads[0]].buffer != buffer:
            continue
        place, (_, height, width) = program.places[step.reads[0]], program.buffers[buffer].shape
        rows, columns = (place.y, place.y + place.shape[1]), (place.x, place.x + place.shape[2])
        outside = min(rows[0], columns[0]) < 0 or rows[1] > height or columns[1] > width
        if step.kernel in _WINDOWS or (step.kernel in _POOLS and outside):
            found.append(step.reads[0])
    return found


def _groups(low: Lowered, program: Program) -> _Groups:
    groups = _Groups()
    places = program.places
    for name, view in low.views.items():
        if name in places:
            groups.join(name, view.of)
    for name, parts in low.concats.items():
        for i, part in enumerate(parts):
            copy = f"{name}:{i}"
            # What could not be written in place is copied, and may change its scale on the way.
            groups.join(copy if copy in places else part, name)
    for step in program.steps:
        if step.kernel in _SAME or (step.kernel == "copy" and ":" not in step.name):
            groups.join(step.reads[0], step.writes)
    for name in program.buffers:  # zeros around a buffer are the same for all who read them
        readers = border_readers(program, name)
        if not program.buffers[name].halo.empty:
            for other in readers[1:]:
                groups.join(readers[0], other)
    return groups


def _coarsen(
    steps: tuple[Step, ...],
    scales: dict[str, Scale],
    groups: _Groups,
    filters: Mapping[str, Sequence[KeptFilters]],
) -> bool:
    """Make outputs coarser whose layers' sums are too coarse for them; whether any was."""
    changed = False
    for step in steps:
        if step.kernel not in ("conv", "depthwise"):
            continue
        x, y = scales[groups.of(step.reads[0])], scales[groups.of(step.writes)]
        largest = max(float(filter_steps(one, x.step).max()) for one in filters[step.name])
        least = x.step * largest / _LARGEST_FACTOR
        if y.step < least:
            scales[groups.of(step.writes)] = y.at_least(least)
            changed = True
    return changed
