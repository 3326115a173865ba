"""What ways of splitting layers are worth: the same MACs, by channels, thin and separable layers.

For each number of MACs, the expected and the counted loss on search images, which nothing is fitted
on, of networks cut by whole channels alone, with layers split in two by rank, and with separable
filters as well, as the search would choose among them.

    python benchmarks/splits.py zoo:bvlc_googlenet --weights bvlc_googlenet.safetensors \
        --data DATA/imagenette --classes "French horn","garbage truck" --side 160 --cuts 4 4.5
"""

from dataclasses import replace

from distillnet.graph.capture import capture_model
from distillnet.graph.replay import masked_scores
from distillnet.refit.teacher import teach
from laboratory import Bench, know, open_case, parser


def main() -> None:
    """Print the table."""
    options = parser(__doc__)
    options.add_argument("--side", type=int, default=160)
    options.add_argument("--cuts", type=float, nargs="+", default=[4.0], help="MAC ratios")
    args = options.parse_args()
    case = open_case(args)
    original = capture_model(case.model)
    x_original, _ = case.read(case.images.statistics)
    size = (args.side, args.side)
    graph = capture_model(case.model, size)
    x_here, _ = case.read(case.images.statistics, size)
    judge = case.judge(original, case.read(case.images.search))
    x_seen, _ = case.read(case.images.search, size)
    known = know(graph, case.mission, x_here)
    full = Bench(original, case.mission, x_original, known).macs
    teacher = teach(original, graph, x_original, max_bytes=10**9)
    thin = tuple(spectrum for spectrum in known.spectra if not spectrum.separable)
    ways = {"channels": (), "thin": thin, "thin or separable": known.spectra}
    print("| MAC ratio | layers | split, separable | expected loss | +- | counted | nats |")
    print("|---" * 7 + "|")
    for cut in args.cuts:
        for name, spectra in ways.items():
            bench = Bench(graph, case.mission, x_here, replace(known, spectra=spectra))
            plan, macs = bench.cut(full / cut)
            small = bench.fitted(plan, teacher)
            verdict = judge.verdict(masked_scores(small, x_seen, {}))
            separable = sum(split.separable for split in plan.splits.values())
            print(
                f"| {full / macs:.2f} | {name} | {len(plan.splits)}, {separable} | "
                f"{verdict.expected_loss_pp:+.2f} | {verdict.expected_uncertain_pp:.2f} | "
                f"{verdict.loss_pp:+.2f} | {verdict.divergence:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
