"""What it changes to fit the last layer to labels, or to several views of few images.

    python benchmarks/fits.py --data DATA [--only SqueezeNet-own] [--points 176:4,144:7]
    python benchmarks/fits.py --data DATA --of views

Of each mission of the yardstick's developing half networks at some input sizes, cut to so many
times less work than the original's, are fitted without and with. Printed are MACs, points lost on
report images, the cross-entropy there, and what the search images let expect.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph.replay import masked_scores
from distillnet.search.candidates import Workshop
from distillnet.search.decision import estimate
from verdict_cases import AS_FOR_TIME, Case, cases, load_report, opened

_OF = {"labels": "fit_labels", "views": "more_views"}  # options of ``Workshop``


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--of", choices=sorted(_OF), default="labels")
    parser.add_argument("--only", default="", help="part of a mission's name")
    parser.add_argument("--points", default="176:4,144:7", help="input side : times less work")
    args = parser.parse_args()
    points = [(int(side), float(ratio)) for side, ratio in _pairs(args.points)]
    print(f"| mission | side | MACs | without {args.of} | with them | expected of these |")
    print("|---" * 6 + "|")
    for case in cases("develop"):
        if args.only in case.name:
            compare(case, args.data, points, _OF[args.of])


def _pairs(text: str) -> list[list[str]]:
    return [pair.split(":") for pair in text.split(",")]


def compare(case: Case, data: Path, points: list[tuple[int, float]], option: str) -> None:
    """A row for each point: the same work left, fitted without and with."""
    ready = opened(case, data)
    model, mission, val = ready.model, ready.mission, ready.images.val
    kinds = [
        ready.workshop(Workshop, replace(AS_FOR_TIME, **{option: wanted}))
        for wanted in (False, True)
    ]
    own_x, of_n = load_report(model, val, mission, ready.pictures.own_size)
    wrong = _wrong_pp(masked_scores(ready.graph, own_x, {})[:, list(mission.indices)], of_n)
    for workshop in kinds:
        workshop.go_to((176, 176))
    for side, ratio in points:
        x_nchw, _ = load_report(model, val, mission, (side, side))
        told = []
        for workshop in kinds:
            workshop.go_to((side, side))
            allowed = workshop.work / ratio
            made = workshop.make(lambda cut: workshop.work_left(cut) <= allowed)  # noqa: B023
            if made is None or made.graph is None:
                break
            channels = workshop.here.channels
            scores = masked_scores(compact(made.graph, channels, made.plan), x_nchw, {})
            lost = _wrong_pp(scores, of_n) - wrong
            told.append(f"{lost:+.1f} / {float(F.cross_entropy(scores, of_n)):.3f}")
        else:
            expected = estimate(made.verdict)
            left = cost(made.graph, channels, made.plan).macs
            print(
                f"| {case.name} | {side} | {ready.macs / left:.2f}x | {told[0]} | {told[1]} | "
                f"{expected.loss_pp:+.1f} +- {expected.uncertain_pp:.1f} |",
                flush=True,
            )


def _wrong_pp(scores_nk: Tensor, of_n: Tensor) -> float:
    return 100 * float((scores_nk.argmax(1) != of_n).double().mean())


if __name__ == "__main__":
    main()
