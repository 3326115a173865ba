"""The C engine's speed on one core: dense, by layer, and with neurons skipped.

    python benchmarks/engine.py agreement largest differences from torch, in both forms
    python benchmarks/engine.py dense     against ONNX Runtime, one thread, in turns
    python benchmarks/engine.py layers    GFLOP/s of each layer, and its share of the core's peak
    python benchmarks/engine.py skipping  random span bitmaps on all convolutions, against dense
    python benchmarks/engine.py spans     single places missing, against whole maps
    python benchmarks/engine.py switching missions in turns, against one mission again and again

Real weights come from --data (see CONTRIBUTING.md), or for one network from --weights; without them
weights are random, which takes as long.
"""

import argparse
import ctypes
import functools
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.deploy.bench import interleave, machine
from distillnet.engine import (
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_compact,
    compile_switchable,
    emit,
    noise_image,
    write_folder,
)
from distillnet.engine.spans import active_strips
from distillnet.graph import Graph, GraphModule, run
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.models import load_model, random_model

NETWORKS = ("zoo:bvlc_googlenet", "torchvision:squeezenet1_0")
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
    write_folder(program, missions, expected, folder, "net", banner="benchmark",
                 preprocessing="none", scale=2.0)  # fmt: skip
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


def agreement(args: argparse.Namespace, folder: Path) -> None:
    """Dense and random bitmaps, switchable and compact, against masks in torch."""
    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data, args.weights)
        channels = analyse(graph)
        rng = np.random.default_rng(0)
        plans = [Plan()]
        for share in (0.25, 0.5):
            keep = {}
            for site in channels.sites:
                c, *sides = graph[site].shape
                bits = rng.random((c, *[1] * len(sides))) < 0.8
                if sides:
                    bits = bits & span_bitmap((c, *sides), share, rng)
                keep[site] = torch.from_numpy(np.broadcast_to(bits, (c, *sides)).copy())
            plans.append(Plan(keep))
        native, _, x = build(graph, plans, folder / f"all{i}")
        found = []
        for j, plan in enumerate(plans):
            masked = mask(graph, plan)
            y = run(masked, {masked.input.name: torch.from_numpy(x)})[masked.output][0].numpy()
            names = tuple(map(str, range(len(y))))
            small = compact(graph, channels, plan)
            program, mission = compile_compact(small, "m", names)
            where = folder / f"one{i}.{j}"
            where.mkdir()
            write_folder(program, [mission], {"m": y}, where, "net", banner="benchmark",
                         preprocessing="none", scale=2.0)  # fmt: skip
            alone = build_native(where, "net", graph.input.shape)
            found.append(
                [relative_difference(n.scores(n.mission(name), x)[0], y)
                 for n, name in ((native, f"m{j}"), (alone, "m"))]
            )  # fmt: skip
        text = ", ".join(f"{a:.1e} and {b:.1e}" for a, b in found)
        print(f"{spec}, switchable and compact: {text} (dense, a quarter and half skipped)")


def dense(args: argparse.Namespace, folder: Path) -> None:
    import onnxruntime as ort

    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data)
        native, program, x = build(graph, [Plan()], folder / f"dense{i}")
        path = folder / f"{i}.onnx"
        module = GraphModule(graph).eval()
        torch.onnx.export(module, (torch.from_numpy(x),), str(path), verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        mission = native.mission("m0")
        times = interleave(
            [lambda: native.scores(mission, x), lambda: session.run(None, {name: x})],  # noqa: B023
            args.seconds, 20,
        )  # fmt: skip
        mine, theirs = 1e3 * np.median(times, 0)
        macs = cost(graph, analyse(graph)).macs
        print(
            f"{spec}: engine {mine:.2f} ms ({2e-6 * macs / mine:.0f} GFLOP/s), ONNX Runtime "
            f"{theirs:.2f} ms ({2e-6 * macs / theirs:.0f}), ratio of medians {mine / theirs:.2f}; "
            f"arena {4 * program.arena_floats / 1e6:.2f} MB, "
            f"{program.arena_floats / program.least_floats:.3f} of what is alive at once"
        )


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


def layers(args: argparse.Namespace, folder: Path) -> None:
    peak = peak_gflops(folder)
    print(f"peak of the core: {peak:.0f} GFLOP/s")
    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data)
        native, program, x = build(graph, [Plan()], folder / f"layers{i}", profile_flags(folder))
        ms = step_times(native, "m0", x, 60)
        by_layer = cost(graph, analyse(graph)).layers
        total = ms.sum()
        print(f"{spec}: {total:.2f} ms in all")
        for step, t in sorted(zip(program.steps, ms, strict=False), key=lambda p: -p[1]):
            macs = by_layer[step.name].macs if step.kernel == "conv" else 0
            rate = 2e-6 * macs / t if t > 0 else 0.0
            speed = f"{rate:6.0f} GFLOP/s {100 * rate / peak:4.0f} %" if macs else ""
            print(
                f"  {t:7.3f} ms {100 * t / total:5.1f} %  {step.kernel:12} {speed:24} {step.name}"
            )
        convs = [(by_layer[s.name].macs, t) for s, t in zip(program.steps, ms, strict=False)
                 if s.kernel == "conv"]  # fmt: skip
        flops, time = 2e-6 * sum(m for m, _ in convs), sum(t for _, t in convs)
        print(f"  convolutions and linear layers: {time:.2f} ms, {flops / time:.0f} GFLOP/s, "
              f"{100 * flops / time / peak:.0f} % of the peak")  # fmt: skip


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


def skipping(args: argparse.Namespace, folder: Path) -> None:
    """Time of the convolutions with random span bitmaps at every convolution, against dense."""
    shares = (0.0, 0.25, 0.5, 0.75)
    flags = profile_flags(folder)
    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data)
        channels = analyse(graph)
        rng = np.random.default_rng(0)
        skipped, cases = [], []
        for j, share in enumerate(shares):
            keep = {}
            for site in channels.sites:
                shape = graph[site].shape
                if len(shape) == 3 and min(shape[1:]) > 1:
                    keep[site] = torch.from_numpy(span_bitmap(shape, share, rng))
            planned = cost(graph, channels, Plan(keep))
            skipped.append(1 - planned.macs_with_partial / planned.macs)
            # A program each: missions of one program share one order of channels.
            native, program, x = build(graph, [Plan(keep)], folder / f"skip{i}.{j}", flags)
            convs = [n for n, s in enumerate(program.steps) if s.kernel in ("conv", "depthwise")]
            cases.append((native, convs))
        times: list[list[float]] = [[] for _ in shares]
        for _ in range(15):  # in turns
            for j, (native, convs) in enumerate(cases):
                times[j].append(step_times(native, "m0", x, 4)[convs].sum())
        medians = [float(np.median(t)) for t in times]
        for share, found, t in zip(shares, skipped, medians, strict=True):
            print(
                f"{spec}: {100 * share:.0f} % asked, {100 * found:.0f} % of MACs skipped: "
                f"{t:.2f} ms, {t / medians[0]:.3f} of dense"
            )


def broken_up(args: argparse.Namespace, folder: Path) -> None:
    """Time of convolutions that skip single places, alike for all channels, against whole maps.

    Whole maps: all gaps are computed, too, and masked as any place that some channel needs.
    """
    flags = profile_flags(folder)
    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data)
        channels = analyse(graph)
        for j, missing in enumerate((0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)):
            rng = np.random.default_rng(j)
            keep = {}
            for site in channels.sites:
                n, *sides = graph[site].shape
                if len(sides) == 2 and min(sides) > 1:
                    places = torch.from_numpy(rng.random(sides) >= missing)
                    keep[site] = places.expand(n, *sides).clone()
            cases = []
            for way, close in (("spans", 0), ("whole", 10**6)):
                close_all = functools.partial(active_strips, close=close)
                with mock.patch.object(
                    emit, "active_strips", lambda strips, keep, _, do=close_all: do(strips, keep)
                ):
                    native, program, x = build(graph, [Plan(keep)], folder / f"{way}{i}.{j}", flags)
                convs = [n for n, s in enumerate(program.steps) if s.kernel == "conv"]
                cases.append((native, convs, x))
            times = np.array([[step_times(native, "m0", x, 4)[convs].sum()
                               for native, convs, x in cases] for _ in range(15)])  # fmt: skip
            ratio = np.median(times[:, 0] / times[:, 1])
            print(f"{spec}: {100 * missing:.0f} % of places missing: spans take {ratio:.3f} of the "
                  f"time of whole maps")  # fmt: skip


def switching(args: argparse.Namespace, folder: Path) -> None:
    for i, spec in enumerate(args.networks):
        graph = graph_of(spec, args.data)
        channels = analyse(graph)
        rng = np.random.default_rng(0)
        plans = []
        for _ in range(2):
            keep = {
                site: torch.from_numpy(span_bitmap(graph[site].shape, 0.5, rng))
                for site in channels.sites
                if len(graph[site].shape) == 3
            }
            plans.append(Plan(keep))
        native, _, x = build(graph, plans, folder / f"switch{i}")
        a, b = native.mission("m0"), native.mission("m1")

        def in_turns() -> None:
            for mission in (a, b, a, b):  # noqa: B023
                native.scores(mission, x)  # noqa: B023

        def apart() -> None:
            for mission in (a, a, b, b):  # noqa: B023
                native.scores(mission, x)  # noqa: B023

        times = 1e3 * interleave([in_turns, apart], args.seconds, 20)
        extra = float(np.median(times[:, 0] - times[:, 1])) / 2  # one switch more to and fro
        print(f"{spec}: a switch of the mission costs {extra:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = {
        "agreement": agreement, "dense": dense, "layers": layers, "skipping": skipping,
        "spans": broken_up, "switching": switching,
    }  # fmt: skip
    parser.add_argument("what", choices=commands)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        commands[args.what](args, Path(name))


if __name__ == "__main__":
    main()
