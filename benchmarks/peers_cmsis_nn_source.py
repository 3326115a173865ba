"""C of a network in whole numbers that calls CMSIS-NN's functions, layer by layer."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.int8 import Quantised
from distillnet.engine.int8.fixed import Scale
from distillnet.engine.steps import Step

HEADER = """#include <stdint.h>
#define MODEL_ARENA_ALIGNMENT 16
#define MODEL_ARENA_BYTES {arena}
#define MODEL_MOST_OUTPUTS {count}
enum {{ MODEL_OK = 0 }};
typedef struct {{ int n_outputs; const char *const *classes; }} model_mission;
extern const model_mission model_mission_all;
int model_run_pixels(const model_mission *, uint8_t *, uint32_t, const uint8_t *, float *);
"""
SOURCE = """#include <stdio.h>
#include "arm_nnfunctions.h"
#include "model.h"
#ifndef ARM_MATH_DSP
#error "CMSIS-NN does not see the DSP extension"
#endif
__asm__(".section .rodata\\n.balign 16\\nmodel_weights:\\n.incbin \\"{weights}\\"\\n.text\\n");
extern const int8_t model_weights[];
#define WORDS(at) ((int32_t *)(model_weights + (at)))
extern void say(const char *text);
static void tell(const char *name, long number)
{{
    char line[120];
    snprintf(line, sizeof line, "layer %s: %ld\\n", name, number);
    say(line);
}}
#define TIMER (*(volatile uint32_t *)0x40000004)
#if defined(SIZES)
#define RUN(name, size, call) tell(name, size)
#elif defined(TRACED)
#define RUN(name, size, call)                \\
    do {{                                     \\
        const uint32_t before = TIMER;       \\
        status |= (call);                    \\
        tell(name, (long)(before - TIMER));  \\
    }} while (0)
#else
#define RUN(name, size, call) status |= (call)
#endif
static const char *const classes[] = {{{classes}}};
const model_mission model_mission_all = {{{count}, classes}};
int model_run_pixels(const model_mission *m, uint8_t *a, uint32_t n, const uint8_t *in, float *out)
{{
    int8_t *const arena = (int8_t *)a;
    int status = 0;
    (void)m, (void)n;
{body}
    return status;
}}
"""


def kind_of(network: Quantised, step: Step) -> str:
    """What a step's instructions are counted as."""
    match step.kernel:
        case "max_pool":
            return "maximum"
        case "adaptive_avg" | "mean_scores":
            return "mean"
        case "conv" if network.program.places[step.writes].shape[1:] != (1, 1):
            return "x".join(map(str, network.filters[step.name].weight_mkkc.shape[1:3]))
        case "conv" | "conv_scores":
            return "full"
    return step.kernel


def braces(values: tuple) -> str:
    """An initialiser in C.

    >>> braces((1, (2, 3)))
    '{1, {2, 3}}'
    """
    return f"{{{', '.join(braces(v) if isinstance(v, tuple) else str(v) for v in values)}}}"


@dataclass
class Peer:
    """C of a network that calls CMSIS-NN, and where its maps lie."""

    network: Quantised
    pixels: NDArray[np.uint8]  # (C, 256), what bytes of a picture become
    scores: Scale  # of a layer at the end
    weights: bytearray = field(default_factory=bytearray)
    calls: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # of maps in bytes
    alive: dict[str, list[int]] = field(default_factory=dict)  # first and last call
    named: dict[str, int] = field(default_factory=dict)  # calls by what they tell of themselves
    scratch: dict[int, int] = field(default_factory=dict)  # bytes by call
    scales: dict[str, Scale] = field(default_factory=dict)

    def value(self, name: str, last: int) -> str:
        """Where a map lies that a call reads or writes."""
        self.alive.setdefault(name, [last, last])[1] = last
        return f"arena + @{name}@"

    def keep(self, values: NDArray[np.integer], kind: str) -> int:
        self.weights += bytes(-len(self.weights) % 4)
        at = len(self.weights)
        self.weights += np.ascontiguousarray(values.astype(kind)).tobytes()
        return at

    def shape(self, name: str) -> tuple[int, int, int]:
        return self.network.program.places[name].shape

    def add(self, kind: str, name: str, size: str, call: str, *tables: tuple[str, tuple]) -> None:
        """A call with what it is told, the context of its scratch buffer among it."""
        now = len(self.calls)
        self.named[f"{kind} {name}"] = now
        lines = [f"const {what} = {braces(values)};" for what, values in tables]
        lines.append(f"const cmsis_nn_context ctx = {{arena + @{now}:scratch@, @{now}:size@}};")
        lines.append(f'RUN("{kind} {name}", {size}, {call});')
        self.calls.append("    {\n        " + "\n        ".join(lines) + "\n    }")

    def read(self, name: str) -> tuple[str, int, int]:
        """The value that lies there, and rows and columns of zeros above it and to its left."""
        places = self.network.program.places
        place = places[name]
        inside = range(place.channel, place.channel + place.shape[0] + 1)
        parts = [
            s.writes
            for s in self.network.program.steps
            if s.writes in places and s.kernel != "border"
            and places[s.writes].buffer == place.buffer and places[s.writes].channel in inside
        ]  # fmt: skip
        assert sum(self.shape(part)[0] for part in parts) == place.shape[0], name
        if len(parts) == 1:
            return parts[0], places[parts[0]].y - place.y, places[parts[0]].x - place.x
        if name not in self.sizes:
            self.concatenate(name, sorted(parts, key=lambda part: places[part].channel))
        return name, 0, 0

    def concatenate(self, name: str, parts: list[str]) -> None:
        c, h, w = self.shape(name)
        self.sizes[name], self.scales[name] = c * h * w, self.scales[parts[0]]
        at = 0
        for part in parts:
            mine, now = self.shape(part)[0], len(self.calls)
            x, y = self.value(part, now), self.value(name, now)
            call = f"(arm_concatenation_s8_x({x}, {mine}, {w}, {h}, 1, {y}, {c}, {at}), 0)"
            self.add("concatenation", f"{name} {at}", "0", call)
            at += mine

    def write(self) -> None:
        for step in self.network.program.steps:
            match step.kernel:
                case "input":
                    self.input(step)
                case "conv" | "depthwise" | "conv_scores":
                    self.layer(step)
                case "max_pool" | "adaptive_avg" | "mean_scores":
                    self.pool(step)
                case "border" | "output":
                    pass
                case _:
                    raise SystemExit(f"this benchmark has no call for {step.kernel!r}")

    def input(self, step: Step) -> None:
        name, (c, h, w) = step.writes, self.shape(step.writes)
        self.sizes[name], self.scales[name] = c * h * w, self.network.scales[name]
        table = self.keep(self.pixels.astype(np.int16) - 128, "i1")
        y = self.value(name, len(self.calls))
        self.calls.append(
            f"    for (int i = 0; i < {c * h * w}; i += {c})\n"
            f"        for (int c = 0; c < {c}; c++)\n"
            f"            ({y})[i + c] = model_weights[{table} + 256 * c + in[i + c]];"
        )

    def layer(self, step: Step) -> None:
        s, name = step.settings, step.writes
        source, top, left = self.read(step.reads[0])
        (c, h, w), x = self.shape(source), self.scales[source]
        f = self.network.filters[step.name]
        m, kh, kw, per_group = f.weight_mkkc.shape
        bias, weight = f.bias_m, f.weight_mkkc
        factors = f.multiplier_m / 2.0 ** (32 + f.shift)
        final = step.kernel == "conv_scores"
        if final:  # the mean before it may have another scale here
            (high, wide), y, act = (1, 1), self.scores, (-128, 127)
            ratio = x.step / self.network.scales[step.reads[0]].step
            bias, factors = np.rint(bias / ratio), f.units.astype(np.float64) * ratio / y.step
        else:
            (high, wide), y = self.shape(name)[1:], self.network.scales[name]
            act = (s["lo"] - 128, s["hi"] - 128)
        self.sizes[name], self.scales[name] = m * high * wide, y
        fraction, shift = np.frexp(factors)  # as TFLite has them: multipliers from 2**30 on
        multiplier = np.rint(fraction * 2.0**31).clip(max=2**31 - 1)
        stride, padding, dilation = ((s[k][1], s[k][0]) for k in ("stride", "padding", "dilation"))
        padding = (padding[0] + left, padding[1] + top)
        zeros, kind = (128 - x.zero, y.zero - 128), kind_of(self.network, step)
        if kind == "full":
            assert (kh, kw, *padding) == (h, w, 0, 0), name
            function, params = "fully_connected", (zeros[0], 0, zeros[1], act)
            seen, filters = (1, 1, 1, c * h * w), (c * h * w, 1, 1, m)
            types, size = ("fc", ""), "arm_fully_connected_s8_get_buffer_size(&f)"
        else:
            deep = step.kernel == "depthwise"
            weight = weight.transpose(3, 1, 2, 0) if deep else weight
            function = "depthwise_conv" if deep else "convolve"
            params = (*zeros, *((1,) if deep else ()), stride, padding, dilation, act)
            seen, filters = (1, h, w, c), (1, kh, kw, m) if deep else (m, kh, kw, per_group)
            types = ("dw_conv" if deep else "conv", "per_channel_")
            size = f"arm_{function}_wrapper_s8_get_buffer_size(&p, &x, &f, &y)"
        at_bias, *at = (f"WORDS({self.keep(v, '<i4')})" for v in (bias, multiplier, shift))
        now, at_weight = len(self.calls), self.keep(weight, "i1")
        call = (
            f"arm_{function}_wrapper_s8(&ctx, &p, &q, &x, {self.value(source, now)}, &f, "
            f"model_weights + {at_weight}, &b, {at_bias}, &y, {self.value(name, now)})"
        )
        self.add(
            kind, step.name, size, call,
            (f"cmsis_nn_{types[0]}_params p", params),
            (f"cmsis_nn_{types[1]}quant_params q", (*at, 1)[: 3 if kind == "full" else 2]),
            ("cmsis_nn_dims x", seen), ("cmsis_nn_dims f", filters),
            ("cmsis_nn_dims b", (1, 1, 1, m)), ("cmsis_nn_dims y", (1, high, wide, m)),
        )  # fmt: skip
        if final:
            self.dequantise(name, m)

    def pool(self, step: Step) -> None:
        s, name = step.settings, step.writes
        source, _, _ = self.read(step.reads[0])
        c, h, w = self.shape(source)
        if step.kernel == "max_pool":
            (high, wide), function, size = self.shape(name)[1:], "arm_max_pool_s8", "0"
            (kh, kw), stride, padding = s["kernel"], s["stride"][::-1], s["padding"][::-1]
        else:
            (high, wide), function = (1, 1), "arm_avgpool_s8"
            (kh, kw), stride, padding = (h, w), (1, 1), (0, 0)
            size = f"arm_avgpool_s8_get_buffer_size(1, {c})"
        self.sizes[name], self.scales[name] = c * high * wide, self.scales[source]
        now = len(self.calls)
        maps = self.value(source, now), self.value(name, now)
        self.add(
            kind_of(self.network, step), step.name, size,
            f"{function}(&ctx, &p, &x, {maps[0]}, &f, &y, {maps[1]})",
            ("cmsis_nn_pool_params p", (tuple(stride), tuple(padding), (-128, 127))),
            ("cmsis_nn_dims x", (1, h, w, c)), ("cmsis_nn_dims f", (1, kh, kw, 1)),
            ("cmsis_nn_dims y", (1, high, wide, c)),
        )  # fmt: skip
        if step.kernel == "mean_scores":
            self.dequantise(name, c)

    def dequantise(self, name: str, count: int) -> None:
        scale, y = self.scales[name], self.value(name, len(self.calls))
        self.calls.append(
            f"    for (int i = 0; i < {count}; i++)\n        out[i] = "
            f"{scale.step!r}f * (float)(({y})[i] + {128 - scale.zero});"
        )

    def offsets(self) -> tuple[dict[str, int], int]:
        """Where maps and scratch lie, and the arena's length: the largest first, each in a gap."""
        blocks = [
            (n, self.alive[name][0], self.alive[name][1], name) for name, n in self.sizes.items()
        ]
        blocks += [(size, at, at, f"{at}:scratch") for at, size in self.scratch.items()]
        found: list[tuple[int, int, int, int]] = []
        where = {}
        for size, first, last, name in sorted(blocks, key=lambda block: -block[0]):
            beside = sorted(b for b in found if b[2] <= last and first <= b[3])
            at = 0
            for begin, end, _, _ in beside:
                if at + size <= begin:
                    break
                at = max(at, end)
            found.append((at, at + -(-size // 16) * 16, first, last))
            where[name] = at
        return where, max(end for _, end, _, _ in found)

    def save(self, folder: Path, classes: tuple[str, ...]) -> None:
        """Write sources as the firmware of examples/cortex-m takes them."""
        where, length = self.offsets()
        sizes = {f"{at}:size": size for at, size in self.scratch.items()}
        body = re.sub(
            r"@([^@]*)@", lambda m: str((where | sizes).get(m[1], 0)), "\n".join(self.calls)
        )
        (folder / "weights.bin").write_bytes(self.weights)
        (folder / "model.h").write_text(HEADER.format(arena=length, count=len(classes)))
        text = SOURCE.format(
            weights=folder / "weights.bin", classes=", ".join(f'"{name}"' for name in classes),
            count=len(classes), body=body,
        )  # fmt: skip
        (folder / "model.c").write_text(text)
