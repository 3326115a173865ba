"""What skipping gains on real bitmaps: missions of runs in both forms of C, beside dense networks.

    distillnet distill MODEL --data DIR --classes A,B --method paper --out RUN
    python benchmarks/missions.py RUN [RUN ...]            times, in turns, one thread
    python benchmarks/missions.py RUN [RUN ...] --layers   and where each mission spends its own

*Dense* is the whole network with all its scores. *Compact, whole* is the compact network without
its masks: what any runtime gets of the mission. Ratios are medians of neighbouring calls, dense
over mission, in the processor's time of this thread: other programs' turns do not count.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cli.missions.unknowns import with_weights
from distillnet.cut.plan import Plan
from distillnet.deploy.c_missions import plans_of_runs
from distillnet.deploy.networks import distilled_network
from distillnet.engine import (
    MissionBits,
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_compact,
    compile_switchable,
    noise_image,
    write_folder,
)
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.job.runs import Run, open_run
from engine_laboratory import profile_flags, step_times


def without_masks(graph: Graph) -> Graph:
    """The graph with what its masks switch off computed."""
    whole = {
        node.params["keep"]: torch.ones_like(graph.params[node.params["keep"]])
        for node in graph.nodes
        if node.op == "mask"
    }
    return Graph(graph.nodes, {**graph.params, **whole}, graph.output)


def compiled(
    program: Program, missions: list[MissionBits], folder: Path, flags: list[str]
) -> Native:
    """A program as a library; nothing is compared here, which ``export`` does."""
    folder.mkdir()
    nothing = {m.name: np.zeros(len(m.outputs), np.float32) for m in missions}
    write_folder(program, missions, nothing, folder, "net", banner="benchmark")
    shape = program.places[program.input].shape
    return build_native(folder, "net", shape, flags=["-march=native", *flags])


def in_turns(calls: list[Callable[[], object]], seconds: float) -> NDArray[np.float64]:
    """Seconds (rounds, calls) of processor time, which other programs' turns do not count in."""
    rows = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rows) < 20:
        row = [time.thread_time()]
        for call in calls:
            call()
            row.append(time.thread_time())
        rows.append(np.diff(row))
    return np.array(rows[2:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--weights", type=Path, help="of the original, where runs do not tell")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [with_weights(open_run(run), args.weights) for run in args.runs]
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        _measure(runs, Path(name), args.seconds, args.layers)


def _measure(runs: list[Run], folder: Path, seconds: float, layers: bool) -> None:
    flags = profile_flags(folder) if layers else []
    graph, plans = plans_of_runs(runs)
    x = noise_image(graph.input.shape, 2.0)[None]
    program, bits = compile_switchable(graph, [MissionPlan("dense", Plan(), ("",) * 9)])
    cases = {"dense": (compiled(program, list(bits), folder / "dense", flags), "dense", program)}
    wanted = [MissionPlan(f"m{i}", plan, ()) for i, plan in enumerate(plans)]
    shared, bits = compile_switchable(graph, wanted)
    native = compiled(shared, list(bits), folder / "switchable", flags)
    for i, run in enumerate(runs):
        label = run.directory.name
        cases[f"{label}, switchable"] = native, f"m{i}", shared
        network = distilled_network(run)
        small = capture(network.module, network.shape[1:], channels=network.shape[0])
        for form, one in (("compact, whole", without_masks(small)), ("compact", small)):
            program, mission = compile_compact(one, "m", network.classes)
            where = folder / f"{form}{i}"
            cases[f"{label}, {form}"] = compiled(program, [mission], where, flags), "m", program
    calls = [
        lambda native=native, bound=native.mission(name): native.scores(bound, x)
        for native, name, _ in cases.values()
    ]
    times = in_turns(calls, seconds)
    for run in runs:
        r = run.result
        print(
            f"{run.directory.name}: {r['mac_ratio']:.2f}x fewer MACs in every runtime, "
            f"{r.get('mac_ratio_c') or float('nan'):.2f}x in the C engine, "
            f"{r['mac_ratio_with_partial']:.2f}x neuron by neuron; {r['loss_pp']:+.2f} pp"
        )
    for i, name in enumerate(cases):
        ratio = np.median(times[:, 0] / times[:, i])
        least = np.percentile(times, 10, axis=0)
        print(f"{name:40} {1e3 * np.median(times[:, i]):8.3f} ms, ratio {ratio:.3f}, of the "
              f"quickest tenth {least[0] / least[i]:.3f}")  # fmt: skip
    if not layers:
        return
    for name, (native, mission, program) in cases.items():
        ms = step_times(native, mission, x, 40)
        print(f"{name}: {ms.sum():.3f} ms in all")
        for step, t in zip(program.steps, ms, strict=False):
            print(f"  {t:8.4f} ms  {step.kernel:12} {step.name}")


if __name__ == "__main__":
    main()
