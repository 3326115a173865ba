"""Whom should a layer that sees a smaller image learn from: the original at its own size, or there?

For each input size, uncut and with a number of MACs cut away, the expected and the counted loss on
search and test images of: the network as it is at that size, refitted to what the original says at
that size, and refitted to what it says at its own size.

    python benchmarks/teachers.py torchvision:squeezenet1_0 --weights squeezenet1_0.safetensors \
        --data DATA/imagenette --classes "French horn","garbage truck" --sides 192 160 --cuts 1 1.5
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from distillnet.channels import analyse
from distillnet.classes import parse_mission
from distillnet.compensation import compensate
from distillnet.cost import class_macs
from distillnet.graph import Graph
from distillnet.images import ImageSet, load_all, open_images
from distillnet.models import load_model
from distillnet.partition import split_images
from distillnet.pictures import capture_at
from distillnet.plan import Plan
from distillnet.replay import masked_scores
from distillnet.search import Judge
from distillnet.search.allocation import channel_plan, cut_to_size, open_ledger
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import elimination_orders
from distillnet.surgery import compact
from distillnet.teacher import Teacher, teach


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--sides", type=int, nargs="+", default=[192, 160, 128])
    parser.add_argument("--cuts", type=float, nargs="+", default=[1.0, 1.5], help="MAC ratios")
    args = parser.parse_args()
    model = load_model(args.model, weights=args.weights)
    mission = parse_mission(args.classes, model.classes)
    images = split_images(open_images(args.data, model.classes, mission.indices))
    own_size = model.preprocessing.input_size

    def read(part: ImageSet, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        loaded = load_all(part, model.preprocessing.with_input_size(size))
        return loaded.x_nchw, torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])

    original = capture_at(model, own_size)
    x_original, _ = read(images.statistics, own_size)
    judges = []
    for part in (images.search, images.val):
        x, y = read(part, own_size)
        judges.append(Judge(masked_scores(original, x, {}), y, mission))
    orders = None
    print(
        "| side | MAC ratio | fitted to | search, expected | counted | test, expected | counted |"
    )
    print("|---" * 7 + "|")
    for side in args.sides:
        size = (side, side)
        graph = capture_at(model, size)
        channels = analyse(graph)
        x_here, _ = read(images.statistics, size)
        seen = [read(part, size)[0] for part in (images.search, images.val)]
        if orders is None:
            evidence = measure_evidence(graph, channels, mission, x_here)
            orders = elimination_orders(graph, channels, evidence)
        nothing = np.zeros(channels.count, dtype=bool)
        full, here = (class_macs(g, channels, nothing)[1] for g in (original, graph))
        ledger = open_ledger(graph, channels, orders, mission.indices, 0.1)
        teachers: dict[str, Teacher | None] = {
            "nothing": None,
            "its size": teach(graph, graph, x_here, max_bytes=10**9),
            "own size": teach(original, graph, x_original, max_bytes=10**9),
        }
        for cut in args.cuts:
            gone = cut_to_size(
                channels,
                ledger,
                lambda gone, g=graph, c=channels, most=here / cut: (
                    class_macs(g, c, gone)[1] <= most
                ),
            )
            plan = Plan(channel_plan(graph, channels, gone, mission.indices).keep)
            for name, teacher in teachers.items():
                fitted: Graph = graph
                if teacher is not None:
                    fitted = compensate(graph, channels, plan, teacher, x_here)
                small = compact(fitted, channels, plan)
                losses: list[float] = []
                for judge, x in zip(judges, seen, strict=True):
                    verdict = judge.verdict(masked_scores(small, x, {}))
                    losses += [verdict.expected_loss_pp, verdict.loss_pp]
                ratio = full / class_macs(graph, channels, gone)[1]
                cells = [str(side), f"{ratio:.2f}", name, *(f"{loss:+.2f}" for loss in losses)]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
