"""C source of a network in whole numbers: kernels as they are, tables and calls generated."""

from collections.abc import Callable, Mapping

from distillnet.engine.emit import Tables, fill_template, kernels_source, steps_source
from distillnet.engine.int8.fours import whole_fours
from distillnet.engine.int8.packing import PIXELS, Packed
from distillnet.engine.literals import c_array, c_float
from distillnet.engine.steps import Program, Step
from distillnet.engine.taps import segment_rows

__all__ = ["source_of"]

_ROOMS = ("distillnet.engine.int8", "distillnet.engine")  # what both have in common is the latter's
# Kernels by file, in the order in which they are written; a file is left out where none is used.
_FILES = {
    "base.h": None,
    "sums.h": {"conv", "conv_scores"},
    "places.c": {"conv", "depthwise", "conv_scores"},
    "strips.c": {"conv", "depthwise", "conv_scores"},
    "conv.c": {"conv", "conv_scores"},
    "conv_scores.c": {"conv_scores"},
    "depthwise.c": {"depthwise"},
    "pool.c": {"max_pool", "avg_pool", "adaptive_avg", "adaptive_max"},
    "scores.c": {"scores", "mean_scores"},
    "binary.c": {"binary"},
    "pointwise.c": {"affine", "activation", "mask"},
    "lrn.c": {"lrn"},
    "moving.c": None,
}


def source_of(
    packed: Packed, block: int
) -> Callable[[Program, Mapping[str, object]], dict[str, str]]:
    """What ``write_folder`` asks for ``model.h`` and ``model.c``."""

    def source(program: Program, common: Mapping[str, object]) -> dict[str, str]:
        writer = _Writer(packed, program)
        values = (
            dict(common)
            | steps_source(program, writer)
            | {
                "KERNELS": f"#define BLOCK {block} /* output channels in a block of filters */\n"
                + kernels_source(program, _ROOMS, _FILES),
                "N_SLOTS": len(program.slots),
                "SCORES": writer.at(program.places[program.output]),
            }
        )
        if packed.pixels is not None:
            values["ORDER"] = "RGB" if program.places[program.input].shape[0] == 3 else "grey"
            for suffix in ("h", "c"):
                values[f"MORE_{suffix.upper()}"] = fill_template(f"pixels.{suffix}", values)
        return {name: fill_template(name, values) for name in ("model.h", "model.c")}

    return source


class _Writer(Tables):
    """C initialisers of a program's steps."""

    weighted = frozenset(
        {"conv", "conv_scores", "depthwise", "affine", "activation", "lrn", "copy"}
    )

    def __init__(self, packed: Packed, program: Program) -> None:
        super().__init__(program)
        self.places, self.factors = packed.tables, packed.factors
        self.pixels = packed.pixels

    def call(self, step: Step, arguments: str) -> str:
        if step.kernel != "input" or self.pixels is None:
            return super().call(step, arguments)
        pixels = f"&pixels_of_input, {arguments.removesuffix('in')}weights, pixels"
        return f"if (in != NULL) run_input({arguments}); else run_pixels({pixels})"

    def more(self, step: Step, label: str) -> list[str]:
        if step.kernel == "input" and self.pixels is not None:
            numbers = f"{{{self.places[PIXELS]}, {int(self.pixels.reversed)}}}"
            return [f"static const picturing pixels_of_input = {numbers};\n"]
        if step.kernel in ("conv", "conv_scores"):
            rows = segment_rows(whole_fours(self, step))
            return [c_array("segment", f"segments_{label}", rows, 4)]
        if step.kernel != "lrn":
            return []
        return [c_array("int32_t", f"factors_{label}", self.factors[step.name].tolist())]

    def sums(self, step: Step, label: str) -> str:
        """What a convolution writes, and the taps that it adds up."""
        whole = whole_fours(self, step)
        return f"{self.start(step)}, segments_{label}, {len(whole)}, {sum(s.n for s in whole)}"

    def output(self, step: Step) -> str:
        s = step.settings
        return f"{{{s['shift']}, {s['zero']}, {s['lo']}, {s['hi']}}}"

    def pooling(self, step: Step) -> str:
        s = step.settings
        ones, zeros = (1, 1), (0, 0)
        numbers = [
            *s.get("kernel", ones), *s.get("stride", ones), *s.get("padding", zeros),
            *s.get("dilation", ones), int(s.get("count_pad", 0)), s.get("divisor", 0),
            *(s.get(name, 0) for name in ("x_zero", "zero", "factor", "shift")),
        ]  # fmt: skip
        return f"{self.tensor(step.reads[0])}, {self.tensor(step.writes)}, " + _numbers(*numbers)

    def both(self, step: Step, *more: object) -> str:
        return f"{self.tensor(step.reads[0])}, {self.tensor(step.writes)}, {_numbers(*more)}"

    def struct(self, step: Step, label: str) -> tuple[str, str]:
        kind, members = self._members(step, label)
        return kind, f"{{{members}}}"

    def _members(self, step: Step, label: str) -> tuple[str, str]:
        """The C type of a step's table, and its members."""
        s = step.settings
        match step.kernel:
            case "conv":
                return "conv", f"{self.sums(step, label)}, {self.output(step)}"
            case "conv_scores":
                inner = f"{{{self.sums(step, label)}, {{0, 0, 0, 0}}}}"
                return "conv_scores", f"{inner}, {c_float(s['lo'])}, {c_float(s['hi'])}"
            case "depthwise":
                return "depthwise", f"{self.taps(step)}, {self.output(step)}"
            case "max_pool" | "avg_pool" | "adaptive_avg" | "adaptive_max":
                return "pool", self.pooling(step)
            case "scores" | "mean_scores":
                y = self.at(self.program.places[step.writes])
                numbers = _numbers(y, s["x_zero"], c_float(s["unit"]))
                return "scoring", f"{self.tensor(step.reads[0])}, {numbers}"
            case "binary":
                shape = self.program.places[step.writes].shape
                a, b = (self.operand(name, shape) for name in step.reads)
                factors = (s[name] for name in ("a_zero", "b_zero", "a_factor", "b_factor"))
                numbers = _numbers(int(s["multiply"]), *factors)
                return "binary", f"{a}, {b}, {self.tensor(step.writes)}, {numbers}, " + self.output(
                    step
                )
            case "affine":
                at = self.places[step.name]
                return "affine", self.both(step, at, s["x_zero"], self.output(step))
            case "activation":
                return "activation", self.both(step, self.places[step.name])
            case "mask":
                return "masking", self.both(step, s["zero"])
            case "lrn":
                index = f"index_{label}" if "index" in s else "NULL"
                return "lrn", self.both(
                    step, s["before"], s["after"], self.places[f"{step.name}:bands"],
                    s["places"], s["x_zero"], s["zero"], s["shift"], f"factors_{label}", index,
                )  # fmt: skip
            case "copy":
                index = f"index_{label}" if "index" in s else "NULL"
                table = self.places.get(step.name, -1)
                return "copying", self.both(
                    step, s["value"], s.get("top", 0), s.get("left", 0), index, table
                )
            case "flatten":
                y = self.at(self.program.places[step.writes])
                return "flattening", f"{self.tensor(step.reads[0])}, {y}"
            case "sample":
                return "sampling", self.both(step, f"rows_{label}", f"columns_{label}")
            case "border":
                return "border", f"{self.border(step)[1:-1]}, {s['zero']}"
            case "input":
                numbers = _numbers(s["zero"], c_float(s["per_step"]))
                return "reading", f"{self.tensor(step.writes)}, {numbers}"
        raise AssertionError(step.kernel)


def _numbers(*values: object) -> str:
    return ", ".join(map(str, values))
