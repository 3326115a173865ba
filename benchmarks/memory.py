"""The arena of the C engine, whole maps beside steps that run by turns, row by row.

    python benchmarks/memory.py --data DIR [NETWORK ...]

NETWORK is a run, or one of googlenet, squeezenet, mobilenet, mobilenet-128 and tf_mnist: weights of
the first four lie in DIR (see CONTRIBUTING.md), those of the last are random. A number of the arena
is a byte in 8 bits, four in float32. Times are of float32 and 8 bits with this machine's vectors,
and of 8 bits without (as for a microcontroller), processor time of one image in turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.deploy.networks import distilled_network
from distillnet.engine import (
    Program,
    build_native,
    compile_compact,
    noise_image,
    prepare_compact,
    write_folder,
)
from distillnet.engine.int8 import find_ranges, quantise, write_int8_folder
from distillnet.graph import Graph
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import analyse
from distillnet.job.runs import open_run
from distillnet.models import load_model, random_model

HALF = (0.5, 0.5, 0.5)
MOBILENET = "{}/models/mobilenet_v1.py:build", "models/mobilenet_v1_075.safetensors"
MODELS = {
    "googlenet": ("zoo:bvlc_googlenet", "weights/bvlc_googlenet.safetensors", 224),
    "squeezenet": ("torchvision:squeezenet1_0", "weights/squeezenet1_0.safetensors", 224),
    "mobilenet": (*MOBILENET, 224),
    "mobilenet-128": (*MOBILENET, 128),
}
LARGE = 100.0  # what a network for pixels of 0 to 255 is given, others 1.5


def graph_of(name: str, data: Path, classes: int | None = None) -> Graph:
    """A network, with the scores of its first classes only."""
    if name == "tf_mnist":
        return capture_model(random_model("zoo:tf_mnist"))
    if name not in MODELS:
        network = distilled_network(open_run(Path(name)))
        return capture(network.module, network.shape[1:], channels=network.shape[0])
    spec, weights, side = MODELS[name]
    how = {"input_size": side, "mean": HALF, "std": HALF} if "mobilenet" in name else {}
    table = None if spec.startswith("zoo") else data / "imagenet_classes.tsv"
    model = load_model(
        spec.format(data), weights=data / weights, class_names=table, run_code=True, **how
    )
    graph = capture_model(model, (side, side))
    if classes is None:
        return graph
    return compact(graph, analyse(graph), Plan(outputs=tuple(range(classes))))


class Forms:
    """A network without and with chains, in one precision."""

    def __init__(self, graph: Graph, scale: float, folder: Path, kind: str) -> None:
        self.programs: dict[bool, Program] = {}
        self.calls: dict[bool, Callable[[], NDArray[np.float32]]] = {}
        self.x = noise_image(graph.input.shape, scale)[None]
        flags = {"vectors": ["-march=native"], "float": ["-march=native"], "plain": ["-mno-avx"]}
        for by_rows in (False, True):
            where = folder / f"{kind}-{by_rows}"
            where.mkdir()
            program = self._written(graph, where, kind, by_rows)
            self.programs[by_rows] = program
            kind_of = "<f4" if kind == "float" else "u1"
            native = build_native(
                where, "net", graph.input.shape, flags=flags[kind], weights_type=kind_of
            )
            self.calls[by_rows] = partial(native.scores, native.mission("all"), self.x)

    def _written(self, graph: Graph, where: Path, kind: str, by_rows: bool) -> Program:
        count = graph[graph.output].shape[0]
        classes = tuple(map(str, range(count)))
        zeros = {"all": np.zeros(count, np.float32)}
        if kind == "float":
            program, mission = compile_compact(graph, "all", classes, by_rows=by_rows)
            write_folder(program, [mission], zeros, where, "net", banner="benchmark")
            return program
        prepared = prepare_compact(graph, "all", classes)
        ranges = find_ranges(prepared.graph, torch.from_numpy(self.x))["MinMax"]
        block = 1 if kind == "plain" else 16
        network, missions = quantise(
            prepared.graph, prepared.missions, ranges, block, by_rows=by_rows
        )
        return write_int8_folder(network, missions, zeros, where, "net", banner="benchmark")

    def measured(self, runs: int) -> str:
        """Whether both say the same, and what they take."""
        equal = np.array_equal(self.calls[False](), self.calls[True]())
        rows = []
        for _ in range(runs):
            row = []
            for by_rows in (False, True):
                start = time.process_time()
                self.calls[by_rows]()
                row.append(1e3 * (time.process_time() - start))
            rows.append(row)
        times = np.array(rows)
        ratio = float(np.median(times[:, 1] / times[:, 0]))
        before, after = np.median(times, axis=0)
        same = "the same scores" if equal else "OTHER SCORES"
        return f"{before:.2f} to {after:.2f} ms, {ratio:.3f} of the time, {same}"


def told(program: Program) -> str:
    """Which step takes the most, and what."""
    steps = range(len(program.steps) - 1)
    alive = {i: [b for b in program.buffers.values() if b.first <= i <= b.last] for i in steps}
    peak = max(steps, key=lambda i: sum(b.size for b in alive[i]))
    parts = sorted(alive[peak], key=lambda b: -b.size)[:4]
    names = ", ".join(f"{b.name} {b.size:,}" for b in parts)
    return f"at {program.steps[peak].kernel} {program.steps[peak].name}: {names}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[*MODELS, "tf_mnist"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=5, help="of the networks that lie in DIR")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument(
        "--kinds", nargs="*", default=["float", "vectors", "plain"], help="what to run"
    )
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    for name in args.networks:
        graph = graph_of(name, args.data, args.classes).to(torch.float32)
        programs = [compile_compact(graph, "all", (), by_rows=b)[0] for b in (False, True)]
        before, after = (p.least_floats for p in programs)
        print(f"{name}: {before:,} numbers to {after:,}, {before / after:.2f} times fewer")
        for program in programs:
            print(f"  {told(program)}")
        print(f"  {[len(c.links) for c in programs[1].chains]} steps in chains", flush=True)
        scale = LARGE if "googlenet" in name else 1.5
        for kind in args.kinds:
            with tempfile.TemporaryDirectory() as folder:
                print(f"  {kind}: {Forms(graph, scale, Path(folder), kind).measured(args.runs)}",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
