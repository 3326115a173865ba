"""What the integer steps mean, in plain NumPy: the C has to give the same bits.

Each buffer is an array (H, W, C) with its border; nothing is packed, vectorised or skipped.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.int8.quantise import Quantised, input_bytes
from distillnet.engine.steps import MissionBits, Program, Step

__all__ = ["reference_scores"]

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int64]


def reference_scores(
    network: Quantised, x_nchw: NDArray[np.float32], mission: MissionBits
) -> NDArray[np.float32]:
    """A mission's scores (N, classes) of normalised images (N, C, H, W).

    Of a mission it takes the keep maps and the filters of its own; which inputs are always zero it
    does not ask.
    """
    scores = np.stack([_Run(network, mission).scores(x) for x in x_nchw])
    return scores[:, list(mission.outputs)]


class _Run:
    def __init__(self, network: Quantised, mission: MissionBits) -> None:
        self.network, self.mission = network, mission
        self.program: Program = network.program
        self.buffers: dict[str, Bytes] = {}
        self.scores_n = np.zeros(0, np.float32)
        for name, b in self.program.buffers.items():
            height = b.halo.top + b.shape[1] + b.halo.bottom
            width = b.halo.left + b.shape[2] + b.halo.right
            self.buffers[name] = np.zeros((height, width, b.shape[0]), np.uint8)

    def scores(self, x_chw: NDArray[np.float32]) -> NDArray[np.float32]:
        for step in self.program.steps:
            if step.kernel == "output":
                break
            if step.kernel == "input":
                self.write(step, input_bytes(x_chw, step).transpose(1, 2, 0))
            elif step.kernel == "border":
                self.border(step)
            else:
                done = _KERNELS[step.kernel](self, step)
                if done.dtype == np.float32:
                    self.scores_n = done
                else:
                    self.write(step, self.masked(step, done))
        return self.scores_n

    def read(self, name: str, reach: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Whole:
        """A value (H, W, C), and so many rows and columns around it: above, left, below, right."""
        place = self.program.places[name]
        buffer = self.program.buffers[place.buffer]
        c, h, w = place.shape
        top = buffer.halo.top + place.y - reach[0]
        left = buffer.halo.left + place.x - reach[1]
        bottom, right = top + reach[0] + h + reach[2], left + reach[1] + w + reach[3]
        assert min(top, left) >= 0
        return self.buffers[place.buffer][
            top:bottom, left:right, place.channel : place.channel + c
        ].astype(np.int64)

    def write(self, step: Step, y_hwc: NDArray[np.integer]) -> None:
        place = self.program.places[step.writes]
        buffer = self.program.buffers[place.buffer]
        c, h, w = place.shape
        top, left = buffer.halo.top + place.y, buffer.halo.left + place.x
        self.buffers[place.buffer][
            top : top + h, left : left + w, place.channel : place.channel + c
        ] = y_hwc

    def border(self, step: Step) -> None:
        b = self.program.buffers[step.name]
        inside = np.zeros(self.buffers[step.name].shape[:2], bool)
        inside[b.halo.top : b.halo.top + b.shape[1], b.halo.left : b.halo.left + b.shape[2]] = True
        self.buffers[step.name][~inside] = step.settings["zero"]

    def masked(self, step: Step, y_hwc: NDArray[np.integer]) -> NDArray[np.integer]:
        keep = self.mission.keep.get(step.slot) if step.slot is not None else None
        if keep is None:
            return y_hwc
        return np.where(keep.transpose(1, 2, 0), y_hwc, step.settings["zero"])


def _clamped(y: Whole, s: Any) -> Whole:
    return np.clip(y + s["zero"], s["lo"], s["hi"])


def _rounded(sums: Whole, shift: int) -> Whole:
    return (sums + (1 << shift >> 1)) >> shift


def _windows(run: _Run, step: Step) -> Whole:
    """What each place of the output sees, less the zero: (H, W, kernel rows, columns, C)."""
    s = step.settings
    x, y = run.program.places[step.reads[0]], run.program.places[step.writes]
    reach = [0, 0, 0, 0]
    for d in (0, 1):
        far = (y.shape[d + 1] - 1) * s["stride"][d] + (s["kernel"][d] - 1) * s["dilation"][d] + 1
        reach[d], reach[d + 2] = s["padding"][d], far - s["padding"][d] - x.shape[d + 1]
    values = run.read(step.reads[0], (reach[0], reach[1], max(reach[2], 0), max(reach[3], 0)))
    values = values - s["x_zero"]
    rows, columns = (
        np.arange(y.shape[d + 1])[:, None] * s["stride"][d]
        + np.arange(s["kernel"][d]) * s["dilation"][d]
        for d in (0, 1)
    )
    return values[rows[:, None, :, None], columns[None, :, None, :]]


def _sums(run: _Run, step: Step) -> Whole:
    """A layer's sums (H, W, M). Products of doubles: every sum is below 2**53, so exact."""
    filters = run.network.filters_of(step, run.mission)
    seen = _windows(run, step).astype(np.float64)
    height, width, _, _, channels = seen.shape
    weight = filters.weight_mkkc.astype(np.float64)
    count = len(weight)
    if step.kernel == "depthwise":
        sums = np.einsum("hwijc,cij->hwc", seen, weight[..., 0])
    else:
        groups = channels // weight.shape[-1]
        parts = []
        for g, some in enumerate(np.split(weight, groups)):
            mine = seen[..., g * weight.shape[-1] : (g + 1) * weight.shape[-1]]
            parts.append(mine.reshape(height * width, -1) @ some.reshape(count // groups, -1).T)
        sums = np.concatenate(parts, 1).reshape(height, width, count)
    whole: Whole = sums.astype(np.int64) + filters.bias_m
    return whole


def _layer(run: _Run, step: Step) -> Whole:
    filters = run.network.filters_of(step, run.mission)
    high = (_sums(run, step) * filters.multiplier_m.astype(np.int64)) >> 32
    return _clamped(_rounded(high, filters.shift), step.settings)


def _layer_scores(run: _Run, step: Step) -> NDArray[np.float32]:
    s, units = step.settings, run.network.filters_of(step, run.mission).units
    sums = _sums(run, step)[0, 0].astype(np.float32)
    return np.clip(sums * units, np.float32(s["lo"]), np.float32(s["hi"])).astype(np.float32)


def _binary(run: _Run, step: Step) -> Whole:
    s = step.settings
    a, b = run.read(step.reads[0]) - s["a_zero"], run.read(step.reads[1]) - s["b_zero"]
    both = a * b * s["a_factor"] if s["multiply"] else a * s["a_factor"] + b * s["b_factor"]
    return _clamped(_rounded(both, s["shift"]), s)


def _affine(run: _Run, step: Step) -> Whole:
    s, (factors, offsets) = step.settings, run.network.tables[step.name].astype(np.int64)
    x = run.read(step.reads[0]) - s["x_zero"]
    return _clamped(_rounded(x * factors + offsets, s["shift"]), s)


def _activation(run: _Run, step: Step) -> Bytes:
    table: Bytes = run.network.tables[step.name].astype(np.uint8)
    return table[run.read(step.reads[0])]


def _max_pool(run: _Run, step: Step) -> Whole:
    s = step.settings
    x, shape = run.read(step.reads[0]), run.program.places[step.writes].shape
    y = np.zeros((*shape[1:], shape[0]), np.int64)
    for row, column, rows, columns, _ in _pool_windows(s, x.shape, shape):
        y[row, column] = x[np.ix_(rows, columns)].max((0, 1))
    return y


def _avg_pool(run: _Run, step: Step) -> Whole:
    s = step.settings
    x, shape = run.read(step.reads[0]) - s["x_zero"], run.program.places[step.writes].shape
    y = np.zeros((*shape[1:], shape[0]), np.int64)
    for row, column, rows, columns, padded in _pool_windows(s, x.shape, shape):
        area = padded if s["count_pad"] else len(rows) * len(columns)
        y[row, column] = _mean(x[np.ix_(rows, columns)].sum((0, 1)), s["divisor"] or area, s)
    return y


def _pool_windows(s: Any, have: tuple[int, ...], want: tuple[int, int, int]) -> Any:
    """Places of the output with the rows and columns they see, and how large a window would be."""
    for row in range(want[1]):
        for column in range(want[2]):
            at, area = [], 1
            for d, i in enumerate((row, column)):
                first = i * s["stride"][d] - s["padding"][d]
                inside = first + np.arange(s["kernel"][d]) * s["dilation"][d]
                area *= min(first + s["kernel"][d], have[d] + s["padding"][d]) - first
                at.append(inside[(inside >= 0) & (inside < have[d])])
            yield row, column, at[0], at[1], area


def _mean(sums: Whole, area: int, s: Any) -> Whole:
    """Sums over an area as bytes; the factor is divided first, rounded."""
    factor = (s["factor"] + area // 2) // area
    return np.clip(_rounded(sums * factor, s["shift"]) + s["zero"], 0, 255)


def _adaptive(run: _Run, step: Step, of: Callable[[Whole], Whole]) -> Whole:
    x, (c, height, width) = run.read(step.reads[0]), run.program.places[step.writes].shape
    y = np.zeros((height, width, c), np.int64)
    for row in range(height):
        for column in range(width):
            top, bottom = row * len(x) // height, -(-(row + 1) * len(x) // height)
            left = column * x.shape[1] // width
            right = -(-(column + 1) * x.shape[1] // width)
            y[row, column] = of(x[top:bottom, left:right])
    return y


def _adaptive_avg(run: _Run, step: Step) -> Whole:
    s = step.settings

    def mean(part: Whole) -> Whole:
        return _mean((part - s["x_zero"]).sum((0, 1)), part.shape[0] * part.shape[1], s)

    return _adaptive(run, step, mean)


def _adaptive_max(run: _Run, step: Step) -> Whole:
    return _adaptive(run, step, lambda part: part.max((0, 1)))


def _mean_scores(run: _Run, step: Step) -> NDArray[np.float32]:
    s, x = step.settings, run.read(step.reads[0])
    sums = (x - s["x_zero"]).sum((0, 1)).astype(np.float32)
    unit = np.float32(s["unit"]) / np.float32(x.shape[0] * x.shape[1])
    return np.asarray(sums * unit, np.float32)


def _scores(run: _Run, step: Step) -> NDArray[np.float32]:
    """In PyTorch's order, (C, H, W)."""
    s = step.settings
    x = (run.read(step.reads[0]) - s["x_zero"]).transpose(2, 0, 1).reshape(-1)
    return np.asarray(x.astype(np.float32) * np.float32(s["unit"]), np.float32)


def _copy(run: _Run, step: Step) -> Whole:
    s, x = step.settings, run.read(step.reads[0])
    c, height, width = run.program.places[step.writes].shape
    if "index" in s:
        x = x[:, :, list(s["index"])]
    if (table := run.network.tables.get(step.name)) is not None:
        x = table[x].astype(np.int64)
    y = np.full((height, width, c), s["value"], np.int64)
    rows = np.arange(height) - s.get("top", 0)
    columns = np.arange(width) - s.get("left", 0)
    inside = [(i >= 0) & (i < n) for i, n in ((rows, x.shape[0]), (columns, x.shape[1]))]
    y[np.ix_(*inside)] = x[np.ix_(rows[inside[0]], columns[inside[1]])]
    return y


def _flatten(run: _Run, step: Step) -> Whole:
    return run.read(step.reads[0]).transpose(2, 0, 1).reshape(1, 1, -1)


def _sample(run: _Run, step: Step) -> Whole:
    s = step.settings
    return run.read(step.reads[0])[np.ix_(list(s["rows"]), list(s["columns"]))]


def _mask(run: _Run, step: Step) -> Whole:
    return run.read(step.reads[0])


def _lrn(run: _Run, step: Step) -> Whole:
    s, tables = step.settings, run.network.tables
    x = run.read(step.reads[0]) - s["x_zero"]
    if "index" in s:
        x = x[:, :, list(s["index"])]
    bands = tables[f"{step.name}:bands"].astype(np.int64)
    squares, channels = np.zeros_like(x), x.shape[2]
    for d in range(-s["before"], s["after"] + 1):
        c = np.arange(max(0, -d), min(channels, channels - d))
        squares[..., c] += x[..., c + d] ** 2 * bands[d + s["before"], c]
    table = tables[step.name].astype(np.int64)
    at, beyond = squares >> s["places"], squares & ((1 << s["places"]) - 1)
    factors = table[at] - (((table[at] - table[at + 1]) * beyond) >> s["places"])
    return np.clip(_rounded(x * factors, s["shift"]) + s["zero"], 0, 255)


_KERNELS: dict[str, Callable[[_Run, Step], NDArray[Any]]] = {
    "conv": _layer, "depthwise": _layer, "conv_scores": _layer_scores, "binary": _binary,
    "affine": _affine, "activation": _activation, "max_pool": _max_pool, "avg_pool": _avg_pool,
    "adaptive_avg": _adaptive_avg, "adaptive_max": _adaptive_max, "mean_scores": _mean_scores,
    "scores": _scores, "copy": _copy, "flatten": _flatten, "sample": _sample, "mask": _mask,
    "lrn": _lrn,
}  # fmt: skip
