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
    if step.kernel not in ("conv", "conv_scores", "depthwise"):
        return {"max_pool": "maximum", "adaptive_avg": "mean", "mean_scores": "mean"}.get(
            step.kernel, step.kernel
        )
    if step.kernel == "depthwise":
        return "depthwise"
    if step.kernel == "conv_scores" or network.program.places[step.writes].shape[1:] == (1, 1):
        return "full"
    return "x".join(map(str, network.filters[step.name].weight_mkkc.shape[1:3]))


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

    def add(self, name: str, kind: str, size: str, tables: str, call: str) -> None:
        self.named[f"{kind} {name}"] = len(self.calls)
        call = f'RUN("{kind} {name}", {size}, {call});'
        self.calls.append(f"    {{\n        {tables}\n        {call}\n    }}")

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
            self.add(name, "concatenation", "0", "", call)
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
            f"        for (int c = 0; c < {c}; c++)\n            ({y})[i + c] = model_weights[{table} + 256 * c + in[i + c]];"
        )

    def layer(self, step: Step) -> None:
        s = step.settings
        source, top, left = self.read(step.reads[0])
        now = len(self.calls)
        (c, h, w), x, name = self.shape(source), self.scales[source], step.writes
        f = self.network.filters[step.name]
        m, kh, kw, _ = f.weight_mkkc.shape
        final = step.kernel == "conv_scores"
        places = (1, 1) if final else self.shape(name)[1:]
        y = self.scores if final else self.network.scales[name]
        lo, hi = (0, 255) if final else (s["lo"], s["hi"])
        bias = f.bias_m
        factors = f.multiplier_m / 2.0 ** (32 + f.shift)
        if final:  # the mean before it may have another scale here
            ratio = x.step / self.network.scales[step.reads[0]].step
            bias, factors = np.rint(bias / ratio), f.units.astype(np.float64) * ratio / y.step
        fraction, shift = np.frexp(factors)  # as TFLite has them: from 2**30 on
        multiplier = np.rint(fraction * 2.0**31).clip(max=2**31 - 1)
        deep = step.kernel == "depthwise"
        weight = f.weight_mkkc.transpose(3, 1, 2, 0) if deep else f.weight_mkkc
        at = [self.keep(v, "<i4") for v in (bias, multiplier, shift)] + [self.keep(weight, "i1")]
        self.sizes[name], self.scales[name] = m * places[0] * places[1], y
        kind = kind_of(self.network, step)
        full = kind == "full"
        assert not full or ((kh, kw) == (h, w) and not any((top, left, *s["padding"]))), name
        offsets, act = f"{-x.zero + 128}, {y.zero - 128}", f"{{{lo - 128}, {hi - 128}}}"
        pairs = [(d[1], d[0]) for d in (s["stride"], s["padding"], s["dilation"])]
        pairs[1] = (pairs[1][0] + left, pairs[1][1] + top)
        tiles = ", ".join(f"{{{a}, {b}}}" for a, b in pairs)
        filters = (1, kh, kw, m) if deep else (m, kh, kw, f.weight_mkkc.shape[3])
        quant = f"{{WORDS({at[1]}), WORDS({at[2]})}}"
        params = f"cmsis_nn_conv_params p = {{{offsets}, {tiles}, {act}}}"
        function, sized = "arm_convolve_wrapper_s8", "&p, &x, &f, &y"
        if deep:
            params = f"cmsis_nn_dw_conv_params p = {{{offsets}, 1, {tiles}, {act}}}"
            function = "arm_depthwise_conv_wrapper_s8"
        if full:
            params = f"cmsis_nn_fc_params p = {{{-x.zero + 128}, 0, {y.zero - 128}, {act}}}"
            function, sized = "arm_fully_connected_wrapper_s8", "&f"
            c, h, w, filters = c * h * w, 1, 1, (c * h * w, 1, 1, m)
            quant = f"{{WORDS({at[1]}), WORDS({at[2]}), 1}}"
        of_size = "arm_fully_connected_s8" if full else function
        tables = (
            f"const {params};\n        const cmsis_nn_{'' if full else 'per_channel_'}quant_params "
            f"q = {quant};\n        const cmsis_nn_dims x = {{1, {h}, {w}, {c}}}, f = "
            f"{{{', '.join(map(str, filters))}}}, b = {{1, 1, 1, {m}}}, y = "
            f"{{1, {places[0]}, {places[1]}, {m}}};\n        "
            f"const cmsis_nn_context ctx = {{arena + @{now}:scratch@, @{now}:size@}};"
        )
        call = (
            f"{function}(&ctx, &p, &q, &x, {self.value(source, now)}, &f, model_weights + {at[3]}, "
            f"&b, WORDS({at[0]}), &y, {self.value(name, now)})"
        )
        self.add(step.name, kind, f"{of_size}_get_buffer_size({sized})", tables, call)
        if final:
            self.dequantise(name, m)

    def pool(self, step: Step) -> None:
        s, name = step.settings, step.writes
        source, _, _ = self.read(step.reads[0])
        now, (c, h, w) = len(self.calls), self.shape(source)
        high, wide = (1, 1) if step.kernel != "max_pool" else self.shape(name)[1:]
        kernel, stride = (s[k] if "kernel" in s else (h, w) for k in ("kernel", "stride"))
        padding = s.get("padding", (0, 0))
        self.sizes[name], self.scales[name] = c * high * wide, self.scales[source]
        tables = (
            f"const cmsis_nn_pool_params p = {{{{{stride[1]}, {stride[0]}}}, {{{padding[1]}, "
            f"{padding[0]}}}, {{-128, 127}}}};\n        "
            f"const cmsis_nn_dims x = {{1, {h}, {w}, {c}}}, f = {{1, {kernel[0]}, {kernel[1]}, 1}}, y = {{1, {high}, {wide}, {c}}};\n        "
            f"const cmsis_nn_context ctx = {{arena + @{now}:scratch@, @{now}:size@}};"
        )
        most = step.kernel == "max_pool"
        function = "arm_max_pool_s8" if most else "arm_avgpool_s8"
        size = "0" if most else f"arm_avgpool_s8_get_buffer_size({wide}, {c})"
        x, y = self.value(source, now), self.value(name, now)
        call = f"{function}(&ctx, &p, &x, {x}, &f, &y, {y})"
        self.add(step.name, kind_of(self.network, step), size, tables, call)
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
        blocks = [(self.sizes[name], *self.alive[name], name) for name in self.sizes]
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

    def save(self, folder: Path, classes: tuple[str, ...]) -> int:
        """Write the sources, as the firmware of examples/cortex-m takes them; the arena's bytes."""
        where, length = self.offsets()
        (folder / "weights.bin").write_bytes(self.weights)
        body = re.sub(r"@([^@]*):size@", lambda m: str(self.scratch.get(int(m[1]), 0)), self.body())
        body = re.sub(r"@([^@]*)@", lambda m: str(where.get(m[1], 0)), body)
        names = ", ".join(f'"{name}"' for name in classes)
        (folder / "model.h").write_text(HEADER.format(arena=length, count=len(classes)))
        (folder / "model.c").write_text(
            SOURCE.format(
                weights=folder / "weights.bin", classes=names, count=len(classes), body=body
            )
        )
        return length

    def body(self) -> str:
        return "\n".join(self.calls)
