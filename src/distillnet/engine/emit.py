"""C source of a program and its missions: kernels as they are, tables and calls generated."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files

from distillnet.engine.by_rows import BY_ROWS, chain_source
from distillnet.engine.literals import c_array, c_comment, c_float
from distillnet.engine.spans import ActiveStrip, strip_rows
from distillnet.engine.steps import Place, Program, Step
from distillnet.engine.taps import Segment, segment_rows, whole_segments

__all__ = [
    "NO_MISSION",
    "Tables",
    "fill_template",
    "kernels_source",
    "model_source",
    "steps_source",
]

# Kernels by file, in the order in which they are written; a file is left out where none is used.
_FILES = {
    "base.h": None,
    "places.c": {"conv", "depthwise"},
    "strips.c": {"conv", "depthwise"},
    "conv.c": {"conv"},
    "depthwise.c": {"depthwise"},
    "pool.h": {"max_pool", "avg_pool"},
    "max_pool.c": {"max_pool"},
    "avg_pool.c": {"avg_pool"},
    "adaptive.h": {"adaptive_avg", "adaptive_max"},
    "adaptive_avg.c": {"adaptive_avg"},
    "adaptive_max.c": {"adaptive_max"},
    "affine.c": {"affine"},
    "binary.c": {"binary"},
    "mask.c": {"mask"},
    "activation.c": {"activation"},
    "lrn.c": {"lrn"},
    "layer_norm.c": {"layer_norm"},
    "group_norm.c": {"group_norm"},
    "channel_conv.c": {"channel_conv"},
    "channel_max.c": {"channel_max"},
    "sample.c": {"sample"},
    "border.c": {"border"},
    "input.c": {"input"},
    "copy.c": {"copy"},
    "flatten.c": {"flatten"},
}


# Tables of numbers that a step may have, and what they are in C.
_NUMBERS = {"index": "channel_index", "rows": "uint16_t", "columns": "uint16_t"}
# Of a layer in C: spans, bits, weights, biases, segments, their number and taps.
NO_MISSION = "NULL, NULL, NULL, NULL, NULL, 0, 0"
_WEIGHTED = {
    "conv", "depthwise", "affine", "lrn", "layer_norm", "group_norm", "channel_conv",
}  # fmt: skip


def fill_template(name: str, values: Mapping[str, object]) -> str:
    """A file of ``templates`` with its @NAMES@ filled in."""
    text = files("distillnet.engine").joinpath("templates", name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda m: str(values[m[1]]), text)


def kernels_source(
    program: Program, rooms: Sequence[str], by_file: Mapping[str, set[str] | None]
) -> str:
    """The kernels that a programme needs, each of the first room whose ``kernels`` has the file."""
    used = {step.kernel for step in program.steps}
    most = max((max(s.settings["index"], default=0) for s in _picking(program)), default=0)
    index = f"typedef {'uint32_t' if most >= 2**16 else 'uint16_t'} channel_index;\n\n"
    folders = [files(room).joinpath("kernels") for room in rooms]
    return index + "\n".join(
        next(file for f in folders if (file := f.joinpath(name)).is_file()).read_text("utf-8")
        for name, kernels in by_file.items()
        if kernels is None or kernels & used
    )


def _picking(program: Program) -> list[Step]:
    """Steps that take channels in another order than they lie in."""
    return [step for step in program.steps if step.settings.get("index") is not None]


class Tables:
    """C initialisers of a program's steps.

    Attributes:
        weighted: kernels that read weights.
    """

    weighted: Collection[str] = _WEIGHTED

    def __init__(self, program: Program) -> None:
        self.program = program

    def more(self, step: Step, label: str) -> list[str]:
        """Tables of a step beside its places."""
        if step.kernel != "conv":
            return []
        return [c_array("segment", f"segments_{label}", segment_rows(self.segments(step)), 4)]

    def call(self, step: Step, arguments: str) -> str:
        """The statement that carries a step out."""
        return f"run_{step.kernel}({arguments})"

    def at(self, place: Place) -> int:
        buffer = self.program.buffers[place.buffer]
        return (
            self.program.offsets[place.buffer]
            + (buffer.halo.top + place.y) * buffer.row
            + (buffer.halo.left + place.x) * buffer.shape[0]
            + place.channel
        )

    def row_pixel(self, place: Place) -> tuple[int, int]:
        buffer = self.program.buffers[place.buffer]
        return buffer.row, buffer.shape[0]

    def tensor(self, name: str) -> str:
        place = self.program.places[name]
        c, h, w = place.shape
        row, pixel = self.row_pixel(place)
        return f"{{{self.at(place)}, {row}, {pixel}, {h}, {w}, {c}}}"

    def operand(self, name: str, shape: tuple[int, int, int]) -> str:
        """Where a dimension of 1 meets a larger one, its step is 0."""
        place = self.program.places[name]
        row, pixel = self.row_pixel(place)
        steps = [
            0 if have == 1 < want else step
            for have, want, step in zip(place.shape, shape, (1, row, pixel), strict=True)
        ]
        return f"{{{self.at(place)}, {steps[1]}, {steps[2]}, {steps[0]}}}"

    def runs(self, step: Step) -> tuple[int, int, int, int, int]:
        """A convolution's taps: rows and their step, segments of each and theirs, numbers in one.

        Numbers that lie side by side are one run.
        """
        s = step.settings
        row, pixel = self.row_pixel(self.program.places[step.reads[0]])
        (kh, kw), (dh, dw) = s["kernel"], s["dilation"]
        rows, row_step, segments, segment_step, run = kh, dh * row, kw, dw * pixel, s["source"]
        if (s["source"] == pixel and dw == 1) or kw == 1:  # a row's taps lie side by side
            segments, segment_step, run = 1, 0, kw * run
            if row_step == run or kh == 1:
                rows, row_step, run = 1, 0, kh * run
        return rows, row_step, segments, segment_step, run

    def segments(self, step: Step) -> tuple[Segment, ...]:
        """All taps of a convolution, as runs of numbers that lie side by side."""
        return whole_segments(*self.runs(step))

    def start(self, step: Step) -> str:
        """What a convolution writes, and where the first tap of its outputs lies."""
        s, x = step.settings, self.program.places[step.reads[0]]
        row, pixel = self.row_pixel(x)
        start = self.at(x) - s["padding"][0] * row - s["padding"][1] * pixel
        numbers = (start, s["stride"][0] * row, s["stride"][1] * pixel)
        return f"{self.tensor(step.writes)}, {', '.join(map(str, numbers))}"

    def window(self, step: Step) -> str:
        """What a convolution writes, and where the numbers lie that it reads."""
        return f"{self.start(step)}, {', '.join(map(str, self.runs(step)))}"

    def taps(self, step: Step) -> str:
        """The same for a depthwise convolution, whose taps are one number each."""
        s, x = step.settings, self.program.places[step.reads[0]]
        row, pixel = self.row_pixel(x)
        (kh, kw), (dh, dw) = s["kernel"], s["dilation"]
        start = self.at(x) - s["padding"][0] * row - s["padding"][1] * pixel
        return (
            f"{self.tensor(step.writes)}, {start}, {s['stride'][0] * row}, "
            f"{s['stride'][1] * pixel}, {kh}, {dh * row}, {kw}, {dw * pixel}"
        )

    def pool(self, step: Step) -> str:
        s = step.settings
        numbers = [*s["kernel"], *s["stride"], *s["padding"], *s["dilation"], int(s["count_pad"])]
        return (
            f"{{{self.tensor(step.reads[0])}, {self.tensor(step.writes)}, "
            f"{', '.join(map(str, numbers))}, {s['divisor']}}}"
        )

    def pair(self, step: Step, *more: str) -> str:
        both = [self.tensor(step.reads[0]), self.tensor(step.writes), *more]
        return "{" + ", ".join(both) + "}"

    def border(self, step: Step) -> str:
        b = self.program.buffers[step.name]
        c, h, w = b.shape
        numbers = (
            self.program.offsets[b.name], h, w, c, b.halo.top, b.halo.left, b.halo.bottom,
            b.halo.right,
        )  # fmt: skip
        return "{" + ", ".join(map(str, numbers)) + "}"

    def struct(self, step: Step, label: str) -> tuple[str, str]:
        """The C type and initialiser of a step's table."""
        s = step.settings
        match step.kernel:
            case "conv":
                bounds = f"{c_float(s['lo'])}, {c_float(s['hi'])}"
                parts = self.segments(step)
                taps = f"segments_{label}, {len(parts)}, {sum(p.n for p in parts)}"
                return "conv", f"{{{self.start(step)}, {taps}, {bounds}}}"
            case "depthwise":
                bounds = f"{c_float(s['lo'])}, {c_float(s['hi'])}"
                return "depthwise", f"{{{self.taps(step)}, {bounds}}}"
            case "max_pool" | "avg_pool":
                return "pool", self.pool(step)
            case "adaptive_avg" | "adaptive_max":
                return "adaptive", self.pair(step)
            case "affine":
                at = str(s["scale"]), str(s["shift"])
                return "affine", self.pair(step, *at, c_float(s["lo"]), c_float(s["hi"]))
            case "binary":
                shape = self.program.places[step.writes].shape
                a, b = (self.operand(name, shape) for name in step.reads)
                bounds = f"{c_float(s['lo'])}, {c_float(s['hi'])}"
                kind = int(s["multiply"])
                return "binary", f"{{{a}, {b}, {self.tensor(step.writes)}, {kind}, {bounds}}}"
            case "mask":
                return "masking", self.pair(step)
            case "activation":
                numbers = (c_float(s[name]) for name in "abc")
                return "activation", self.pair(step, s["kind"], *numbers)
            case "lrn":
                whole = (str(s[name]) for name in ("before", "after", "bands"))
                numbers = (c_float(s[name]) for name in ("k", "share", "beta"))
                index = f"index_{label}" if "index" in s else "NULL"
                return "lrn", self.pair(step, *whole, *numbers, index)
            case "layer_norm":
                return "layer_norm", self.pair(
                    step, str(s["scale"]), str(s["shift"]), c_float(s["eps"])
                )
            case "group_norm":
                numbers = (str(s[name]) for name in ("groups", "scale", "shift"))
                return "group_norm", self.pair(step, *numbers, c_float(s["eps"]))
            case "channel_conv":
                return "channel_conv", self.pair(step, str(s["reach"]), str(s["bands"]))
            case "channel_max":
                return "channel_max", self.pair(step, c_float(s["least"]))
            case "sample":
                return "sampling", self.pair(step, f"rows_{label}", f"columns_{label}")
            case "border":
                return "border", self.border(step)
            case "input":
                return "tensor", self.tensor(step.writes)
            case "copy":
                index = f"index_{label}" if "index" in s else "NULL"
                top, left = str(s.get("top", 0)), str(s.get("left", 0))
                return "copying", self.pair(step, c_float(s.get("value", 0.0)), top, left, index)
            case "flatten":
                y = self.at(self.program.places[step.writes])
                return "flattening", f"{{{self.tensor(step.reads[0])}, {y}}}"
        raise AssertionError(step.kernel)


def steps_source(program: Program, writer: Tables) -> dict[str, str]:
    """The tables of a programme's steps, its chains, and the calls that carry all out in turn."""
    tables: list[str] = []
    slots = {name: i for i, name in enumerate(program.slots)}
    windows = {name for chain in program.chains for name in chain.windows}
    for i, step in enumerate(program.steps[:-1]):
        if step.kernel == "border" and step.name in windows:
            continue  # a chain writes it
        kind, numbers = writer.struct(step, str(i))
        for name, number in _NUMBERS.items():
            if name in step.settings:
                tables.append(c_array(number, f"{name}_{i}", step.settings[name]))
        tables += writer.more(step, str(i))
        tables.append(f"static const {kind} step_{i} = {numbers}; /* {c_comment(step.name)} */\n")
        if step.slot is None and step.strips:
            size = math.prod(program.places[step.writes].shape[1:])
            rows, _, _ = strip_rows([ActiveStrip(strip) for strip in step.strips], size)
            tables.append(c_array("strip", f"strips_{i}", rows, 1))
            tables.append(
                f"static const layer layer_{i} = {{strips_{i}, {len(rows)}, {NO_MISSION}}};\n"
            )

    def call(i: int, rows: str) -> str:
        step = program.steps[i]
        arguments = [f"&step_{i}"]
        if step.slot is not None:
            arguments.append(f"layers + {slots[step.slot]}")
        elif step.strips:
            arguments.append(f"&layer_{i}")
        if step.kernel in BY_ROWS:
            height = program.places[step.writes].shape[1]
            arguments.append(rows or f"(rows){{0, {height}, 0, 0}}")
        arguments.append("arena")
        if step.kernel in writer.weighted:
            arguments.append("weights")
        if step.kernel == "input":
            arguments.append("in")
        return f"STEP({i}, {writer.call(step, ', '.join(arguments))});"

    calls: list[str] = []
    begun = {chain.first: n for n, chain in enumerate(program.chains)}
    within = {i for chain in program.chains for i in range(chain.first, chain.last + 1)}
    for i in range(len(program.steps) - 1):
        if i in begun:
            chain = program.chains[begun[i]]
            whole = (
                k for k in range(chain.first, chain.last + 1)
                if program.steps[k].kernel == "border" and program.steps[k].name not in windows
            )  # fmt: skip
            calls += [f"    {call(k, '')}\n" for k in whole]
            calls.append(f"    CHAIN({i}, run_chain(&chain_{begun[i]}, with));\n")
        elif i not in within:
            calls.append(f"    {call(i, '')}\n")
    chains = "".join(chain_source(program, n, call) for n in range(len(program.chains)))
    if chains:
        names = {"ELEMENT": "uint8_t" if program.element_bytes == 1 else "float"}
        chains = fill_template("chain.c", names) + chains
    return {"TABLES": "".join(tables), "CHAINS": chains, "CALLS": "".join(calls)}


def model_source(program: Program, common: Mapping[str, object]) -> dict[str, str]:
    """``model.h`` and ``model.c``; ``common`` has what all templates share."""
    writer = Tables(program)
    scores = writer.at(program.places[program.output])
    values = (
        dict(common)
        | steps_source(program, writer)
        | {
            "KERNELS": kernels_source(program, ["distillnet.engine"], _FILES),
            "N_SLOTS": len(program.slots),
            "SCORES": scores,
            "ARENA_SHARE": f"{program.arena_floats / program.least_floats:.3f}",
        }
    )
    return {name: fill_template(name, values) for name in ("model.h", "model.c")}
