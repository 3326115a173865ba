"""What the benchmarks of the C engine share: networks compiled and checked, steps timed."""

import ctypes
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.engine import (
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_switchable,
    noise_image,
    write_folder,
)
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture_model
from distillnet.models import load_model, random_model

TOLERANCE = 1e-4

# Compiled in front of model.c: the time of each step, summed over runs.
PROFILE = """
#define _POSIX_C_SOURCE 200809L
#include <time.h>
__attribute__((weak)) long long step_ns[4096];
static inline __attribute__((unused)) long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}
#define STEP(index, call)                       \\
    do {                                        \\
        const long long since = now_ns();       \\
        call;                                   \\
        step_ns[index] += now_ns() - since;     \\
    } while (0)
"""

# Independent multiply-adds in registers: what the core can do at most.
PEAK = """
#include <time.h>
#ifdef __AVX512F__
#define N 16
#elif defined(__AVX__)
#define N 8
#else
#define N 4
#endif
typedef float vec __attribute__((vector_size(4 * N)));
double peak(void)
{
    vec sum[12];
    const vec factor = {0.999f}, more = {0.001f};
    double best = 0;
    for (int i = 0; i < 12; i++) sum[i] = more;
    for (int repeat = 0; repeat < 20; repeat++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (long k = 0; k < 1000000; k++) {
            _Pragma("GCC unroll 16") for (int i = 0; i < 12; i++) sum[i] = sum[i] * factor + more;
            __asm__ volatile("" : : "x"(sum[0]), "x"(sum[11]));
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        const double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        const double rate = 1e6 * 12 * N * 2 / s * 1e-9;
        best = rate > best ? rate : best;
    }
    volatile float keep = 0;
    for (int i = 0; i < 12; i++) keep += sum[i][0];
    return best;
}
"""


def peak_gflops(folder: Path) -> float:
    """GFLOP/s of the core's multiply-add units."""
    source, library = folder / "peak.c", folder / "peak.so"
    source.write_text(PEAK)
    native = "-march=native" if platform.machine() == "x86_64" else "-mcpu=native"
    flags = ["-O3", native, "-ffp-contract=fast", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
    peak = ctypes.CDLL(str(library)).peak
    peak.restype = ctypes.c_double
    return float(peak())


def graph_of(spec: str, data: Path, weights: Path | None = None) -> Graph:
    weights = weights or data / "weights" / f"{spec.partition(':')[2]}.safetensors"
    model = load_model(spec, weights=weights) if weights.exists() else random_model(spec)
    return capture_model(model)


def build(
    graph: Graph, plans: Sequence[Plan], folder: Path, flags: Sequence[str] = ()
) -> tuple[Native, Program, NDArray[np.float32]]:
    """Compile missions of a graph, checked against masks; the native, its steps and an image."""
    image = noise_image(graph.input.shape, 2.0)
    x = torch.from_numpy(image)[None]
    wanted: list[MissionPlan] = []
    expected = {}
    for i, plan in enumerate(plans):
        masked = mask(graph, plan)
        y = run(masked, {masked.input.name: x})[masked.output][0].numpy()
        name = f"m{i}"
        wanted.append(MissionPlan(name, plan, tuple(map(str, range(len(y))))))
        expected[name] = y
    program, missions = compile_switchable(graph, wanted)
    folder.mkdir()
    write_folder(program, missions, expected, folder, "net", banner="benchmark", scale=2.0)
    if flags:
        native_flag = "-march=native" if platform.machine() == "x86_64" else "-mcpu=native"
        native = build_native(folder, "net", graph.input.shape, flags=[native_flag, *flags])
    else:
        native = build_native(folder, "net", graph.input.shape)
    for name, y in expected.items():
        found = native.scores(native.mission(name), image[None])[0]
        difference = relative_difference(found, y)
        assert difference <= TOLERANCE, f"{name} differs by {difference:.1e}"
    return native, program, image[None]


def relative_difference(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest, of the outputs' range."""
    return float(np.abs(found - wanted).max() / (wanted.max() - wanted.min()))


def step_times(
    native: Native, mission: str, x: NDArray[np.float32], runs: int
) -> NDArray[np.float64]:
    """ms by step, the least of several groups of runs."""
    spent = (ctypes.c_longlong * 4096).in_dll(native.library, "step_ns")
    bound = native.mission(mission)
    rows = []
    for _ in range(runs):
        ctypes.memset(spent, 0, ctypes.sizeof(spent))
        native.scores(bound, x)
        rows.append(np.array(spent[:], float) * 1e-6)
    result: NDArray[np.float64] = np.median(rows[len(rows) // 4 :], 0)
    return result


def profile_flags(folder: Path) -> list[str]:
    header = folder / "profile.h"
    header.write_text(PROFILE)
    return ["-include", str(header)]


def span_bitmap(shape: Sequence[int], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep maps (C, H, W) that skip about ``share`` of the neurons as runs of places.

    Channels come in groups of 32 with like maps, in any order: in every row one run is left.
    """
    channels, height, width = shape
    keep = np.zeros((channels, height, width), bool)
    anywhere = rng.permutation(channels)
    for first in range(0, channels, 32):
        for y in range(height):
            length = (1 - share) * width
            length = int(length) + (rng.random() < length % 1)
            start = int(rng.integers(0, width - length + 1))
            keep[anywhere[first : first + 32], y, start : start + length] = True
    return keep
