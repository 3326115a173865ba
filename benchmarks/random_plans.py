"""Is a network with channels cut away ever slower than the original, whichever they are?

Cuts random shares of the channels of every layer, ten times, exports each network as ONNX and times
it in turns with the original in ONNX Runtime. Prints MAC ratio, time ratio and the share of the one
that became the other.

    python benchmarks/random_plans.py zoo:bvlc_googlenet --weights bvlc_googlenet.safetensors \
        --data DATA/imagenette --classes tench,church --round-to 16
"""

import tempfile
from pathlib import Path

import numpy as np

from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.deploy.bench import interleave
from distillnet.deploy.networks import Deployable
from distillnet.deploy.onnx_file import open_onnx, write_onnx
from distillnet.graph import Graph, GraphModule
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS
from distillnet.search.allocation import Cut, channel_plan, round_up
from distillnet.search.orders import Order
from laboratory import open_case, parser

_LEAST, _MOST = 0.05, 0.7  # share of channels that go


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--round-to", type=int, default=1)
    options.add_argument("--plans", type=int, default=10)
    options.add_argument("--threads", type=int, default=1)
    args = options.parse_args()
    case = open_case(args)
    graph = capture_model(case.model)
    channels = analyse(graph)
    free = np.setdiff1d(np.arange(channels.count), sorted(channels.pinned))
    x = np.random.default_rng(0).standard_normal((1, *graph.input.shape), dtype=np.float32)
    print("| plan | MACs | time | realised |")
    print("|---" * 4 + "|")
    with tempfile.TemporaryDirectory() as folder:

        def session(network: Graph, name: str):
            path = Path(folder) / f"{name}.onnx"
            how, names = case.model.preprocessing, case.mission.names
            module = GraphModule(network).eval()
            write_onnx(Deployable(name, module, how, names, {"producer": "distillnet"}), path)
            return open_onnx(path, args.threads)

        original = session(graph, "original")
        before = cost(graph, channels).macs
        for seed in range(args.plans):
            generator = np.random.default_rng(seed)
            share = generator.uniform(_LEAST, _MOST)
            order = Order(generator.permutation(free), np.array([0]), np.array([0.0]))
            gone = np.zeros(channels.count, dtype=bool)
            for layer in (node.name for node in graph.nodes if node.op in LAYERS):
                own = np.intersect1d(channels.of[layer], free)
                gone[generator.permutation(own)[: int(share * len(own))]] = True
            gone = round_up(graph, channels, (order,), gone, args.round_to)
            plan = channel_plan(graph, channels, Cut(gone), case.mission.indices)
            distilled = session(compact(graph, channels, plan), f"plan{seed}")
            calls = [lambda s=s: s.scores(x) for s in (original, distilled)]
            times = interleave(calls, 0.0, 40)
            macs = before / cost(graph, channels, plan).macs
            ratio = float(np.median(times[:, 0] / times[:, 1]))
            print(
                f"| {seed} | {macs:.2f}x | {ratio:.2f}x | {100 * ratio / macs:.0f} % |", flush=True
            )


if __name__ == "__main__":
    main()
