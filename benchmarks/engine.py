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
import functools
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.deploy.bench import interleave, machine
from distillnet.engine import build_native, compile_compact, spans, write_folder
from distillnet.engine.spans import active_strips
from distillnet.graph import GraphModule, run
from distillnet.graph.channels import analyse
from engine_laboratory import (
    build,
    graph_of,
    peak_gflops,
    profile_flags,
    relative_difference,
    span_bitmap,
    step_times,
)

NETWORKS = ("zoo:bvlc_googlenet", "torchvision:squeezenet1_0")


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
            write_folder(program, [mission], {"m": y}, where, "net", banner="benchmark", scale=2.0)
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
                    spans, "active_strips", lambda strips, keep, _, do=close_all: do(strips, keep)
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
