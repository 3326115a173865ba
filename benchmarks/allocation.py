"""How the harm of many cuts adds up, and which charge spends a budget best.

    python benchmarks/allocation.py MODEL --weights FILE --data DIR --classes A,B,C [--saving 0.18]

For each exponent gamma: all sites cut for the same wanted saving, the sum of the divergences they
have alone, the divergence they have together, and errors, on the search images.
"""

import tempfile
from pathlib import Path

import torch

from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.job.distill import measure_statistics
from distillnet.job.distillation import Options
from distillnet.search import SCORES, Findings
from distillnet.search.curves import allocate, divergence, log_probabilities, measure
from distillnet.search.units import neuron_units
from laboratory import open_case, parser


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--saving", type=float, default=0.18, help="share of all MACs")
    args = options.parse_args()
    case = open_case(args)
    model, mission, images = case.model, case.mission, case.images
    graph = capture_model(model)
    channels = analyse(graph)
    with tempfile.TemporaryDirectory() as folder:
        atlas, _ = measure_statistics(
            graph, channels, model, images.statistics, Path(folder), Options()
        )
        units = neuron_units(channels, SCORES["heat"](Findings(graph, channels, atlas, mission, 0)))
        x_nchw, labels = case.read(images.search)
        few = torch.cat([torch.where(labels == c)[0][:12] for c in labels.unique()])
        curves = measure(
            graph, channels, mission, units, x_nchw[few],
            lambda c: c.macs_with_partial, lambda n: None,
        )  # fmt: skip
        reference = log_probabilities(masked_scores(graph, x_nchw, {}), mission)
        print(f"errors before: {_errors(reference, labels):.2f} %")
        whole = cost(graph, channels).macs
        for gamma in (1.0, 0.75, 0.6, 0.5):
            shares = allocate(curves, gamma, args.saving)
            alone = sum(
                float(curve.divergences[(curve.shares <= share + 1e-9).sum() - 1])
                for curve, share in zip(curves, shares, strict=True)
            )
            keep = {
                site: cut.keep
                for unit, share in zip(units, shares, strict=True)
                if share > 0
                for site, cut in unit.cut(share).items()
            }
            now = log_probabilities(masked_scores(graph, x_nchw, keep), mission)
            left = cost(graph, channels, Plan(keep, mission.indices)).macs_with_partial
            print(
                f"gamma {gamma:4}: MACs with partial removal {whole / left:.3f} x, alone "
                f"{alone:.4f} nats in sum, together {divergence(reference, now):.4f} nats, errors "
                f"{_errors(now, labels):.2f} %"
            )


def _errors(log_p: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * float((log_p.argmax(1) != labels).double().mean())


if __name__ == "__main__":
    main()
