"""Does the loss on images that a network was trained on predict the loss on images it never saw?

Cuts a network to several sizes and prints, for each, the counted and the expected loss on search
images (of its training set, but none that weights were fitted on), the latter less what a lightly
cut network loses there, which is the search's signal, and both losses on test images.
`zoo:tf_cifar` is the network to ask: its training and test errors lie far apart.

    python benchmarks/unseen.py zoo:tf_cifar --weights tf_cifar.safetensors --data DATA/cifar10 \
        --classes 0,1,2,3,4
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillnet.capture import capture
from distillnet.channels import analyse
from distillnet.classes import Mission, parse_mission
from distillnet.compensation import compensate
from distillnet.cost import class_macs
from distillnet.images import ImageSet, limit, load_all, open_images
from distillnet.models import Model, load_model
from distillnet.partition import split_images
from distillnet.plan import Plan
from distillnet.replay import masked_scores
from distillnet.search import Budget, Judge, Verdict, beyond_memory
from distillnet.search.allocation import channel_plan, cut_to_size, open_ledger
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import elimination_orders
from distillnet.surgery import compact
from distillnet.teacher import teach

_RATIOS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
_FIT, _SEARCH, _TEST = 1000, 3000, 5000  # images


def tensors(images: ImageSet, count: int, model: Model, mission: Mission) -> tuple[Tensor, Tensor]:
    """Some images of each class, and their positions in the mission."""
    loaded = load_all(limit(images, max(1, count // len(mission)), 0), model.preprocessing)
    return loaded.x_nchw, torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", required=True)
    args = parser.parse_args()
    model = load_model(args.model, weights=args.weights)
    mission = parse_mission(args.classes, model.classes)
    images = split_images(open_images(args.data, model.classes, mission.indices))
    x_fit, _ = tensors(images.statistics, _FIT, model, mission)
    x_search, y_search = tensors(images.search, _SEARCH, model, mission)
    x_test, y_test = tensors(images.val, _TEST, model, mission)

    graph = capture(
        model.module, model.preprocessing.input_size, channels=len(model.preprocessing.mean)
    )
    channels = analyse(graph)
    evidence = measure_evidence(graph, channels, mission, x_fit)
    orders = elimination_orders(graph, channels, evidence)
    ledger = open_ledger(graph, channels, orders, mission.indices)
    teacher = teach(graph, graph, x_fit, max_bytes=10**9)
    full = class_macs(graph, channels, np.zeros(channels.count, dtype=bool))[1]
    judges = [
        Judge(masked_scores(graph, x, {}), y, mission)
        for x, y in ((x_search, y_search), (x_test, y_test))
    ]
    print("| MAC ratio | search, counted | expected | beyond memory | test, counted | expected |")
    print("|---" * 6 + "|")
    light: Verdict | None = None
    for ratio in _RATIOS:
        gone = cut_to_size(
            channels,
            ledger,
            lambda gone, ratio=ratio: class_macs(graph, channels, gone)[1] <= full / ratio,
        )
        plan = channel_plan(graph, channels, gone, mission.indices)
        small = compact(
            compensate(graph, channels, plan, teacher, x_fit), channels, Plan(plan.keep)
        )
        search, test = (
            judge.verdict(masked_scores(small, x, {}))
            for judge, x in zip(judges, (x_search, x_test), strict=True)
        )
        light = light or search
        # A budget so wide that it limits nothing.
        beyond = beyond_memory(Budget(100.0), search, light).expected_pp
        losses = (search.loss_pp, search.expected_loss_pp, beyond, test.loss_pp)
        cells = [f"{ratio:g}", *(f"{loss:+.2f}" for loss in (*losses, test.expected_loss_pp))]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
