"""Whom should a layer that sees a smaller image learn from: the original at its own size, or there?

For each input size, uncut and with a number of MACs cut away, the expected and the counted loss on
search and test images of: the network as it is at that size, refitted to what the original says at
that size, and refitted to what it says at its own size.

    python benchmarks/teachers.py torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors \
        --data DATA/imagenette --classes "French horn","garbage truck" --sides 192 160 --cuts 1 1.5
"""

from distillnet.graph.capture import capture_model
from distillnet.graph.replay import masked_scores
from distillnet.refit.teacher import Teacher, teach
from laboratory import Bench, know, open_case, parser


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--sides", type=int, nargs="+", default=[192, 160, 128])
    options.add_argument("--cuts", type=float, nargs="+", default=[1.0, 1.5], help="MAC ratios")
    args = options.parse_args()
    case = open_case(args)
    seen = (case.images.search, case.images.val)
    original = capture_model(case.model)
    x_original, _ = case.read(case.images.statistics)
    judges = [case.judge(original, case.read(part)) for part in seen]
    known = know(original, case.mission, x_original)
    full = Bench(original, case.mission, x_original, known).macs
    print(
        "| side | MAC ratio | fitted to | search, expected | counted | test, expected | counted |"
    )
    print("|---" * 7 + "|")
    for side in args.sides:
        size = (side, side)
        graph = capture_model(case.model, size)
        x_here, _ = case.read(case.images.statistics, size)
        x_seen = [case.read(part, size)[0] for part in seen]
        bench = Bench(graph, case.mission, x_here, known)
        teachers: dict[str, Teacher | None] = {
            "nothing": None,
            "its size": teach(graph, graph, x_here, max_bytes=10**9),
            "own size": teach(original, graph, x_original, max_bytes=10**9),
        }
        for cut in args.cuts:
            plan, macs = bench.cut(bench.macs / cut)
            for name, teacher in teachers.items():
                small = bench.fitted(plan, teacher)
                losses: list[float] = []
                for judge, x in zip(judges, x_seen, strict=True):
                    verdict = judge.verdict(masked_scores(small, x, {}))
                    losses += [verdict.expected_loss_pp, verdict.loss_pp]
                cells = [
                    str(side),
                    f"{full / macs:.2f}",
                    name,
                    *(f"{loss:+.2f}" for loss in losses),
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
