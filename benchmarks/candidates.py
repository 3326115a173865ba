"""What images say of candidates: those that were fitted, others, and report images.

    python benchmarks/candidates.py SqueezeNet-own-0,1,3,4,7-40-0 144:20 112:30
    python benchmarks/candidates.py GoogLeNet-nette-B-100-0 160:8 128:8 --per-class 200 --crossed
    git worktree add OLD 20bdef0
    PYTHONPATH=OLD/src python benchmarks/candidates.py ...                      an earlier state
    python benchmarks/candidates.py ... --thin-rounds 4 --rounds 2    other rounds of the same fit

A mission of the yardstick's developing half (``verdict_cases.CASES``), and candidates as sides of
the input and how many times less there is to do. Printed are the loss that the search's images
suggest (before what known images hide is corrected); the loss found, by squared probabilities / by
errors, and the divergence from the original, in nats, both on images of the same kind that the
search did not use (of imagenette, the network was trained on these, too) and on report images; and
the seconds it took. The first candidate's include what is asked only once.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.images import ImageSet, open_images
from distillnet.refit import depthwise, regression
from distillnet.search.candidates import Workshop
from distillnet.search.judge import Judge, Verdict
from verdict_cases import FOLDERS, Opened, cases, load_report, opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mission", choices=[case.name for case in cases("develop")])
    parser.add_argument("places", nargs="+", type=place, metavar="SIDE:RATIO")
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--per-class", type=int, help="images; default: the mission's")
    parser.add_argument("--crossed", action="store_true", help="cross-validate each")
    parser.add_argument("--rounds", type=int, help="of new aims behind a ReLU")
    parser.add_argument("--thin-rounds", type=int, help="the same, of layers of low rank")
    args = parser.parse_args()
    if args.rounds is not None:
        regression.ROUNDS = depthwise.ROUNDS = args.rounds
    if args.thin_rounds is not None:
        regression._THIN_ROUNDS = args.thin_rounds
    case = next(case for case in cases("develop") if case.name == args.mission)
    ready = opened(replace(case, per_class=args.per_class or case.per_class), args.data)
    others = unused(ready, args.data / FOLDERS[case.source])
    judges = [(images, judge_of(ready, images)) for images in (others, ready.images.val)]
    workshop = ready.workshop(Workshop, graphs=ready.pictures.graphs)
    workshop.go_to((args.places[0][0],) * 2)
    print("| side | MACs | work | fitted | not fitted | unused | nats | report | nats | seconds |")
    print("|---" * 10 + "|")
    for side, ratio in args.places:
        workshop.go_to((side, side))
        most = workshop.work / ratio
        start = time.perf_counter()
        candidate = workshop.make(lambda cut, most=most: workshop.work_left(cut) <= most)
        seconds = time.perf_counter() - start
        if candidate is None or candidate.graph is None:
            parser.error(f"found no network of {ratio}x at {side}; choose a smaller ratio")
        crossed = workshop.cross_validate(candidate) if args.crossed else None
        whole = replace(candidate.plan, outputs=None)
        small = compact(candidate.graph, workshop.here.channels, whole)
        found = " ".join(f"| {lost(ready, *judge, small)}" for judge in judges)
        macs = ready.macs / cost(small, analyse(small)).macs
        print(
            f"| {side} | {macs:.2f}x | {workshop.work / candidate.work:.2f}x "
            f"| {expected(candidate.verdict)} | {expected(crossed)} "
            f"{found} | {seconds:.0f} |",
            flush=True,
        )


def unused(ready: Opened, directory: Path) -> ImageSet:
    """Images of the search's kind that it did not see; none where the report has all others."""
    images = ready.images
    used = {*images.statistics.refs, *images.search.refs, *images.val.refs}
    folders = open_images(directory, ready.model.classes, ready.mission.indices)
    return ImageSet(tuple(ref for ref in folders.train.refs if ref not in used))


def judge_of(ready: Opened, images: ImageSet) -> Judge | None:
    """Of losses beside the original; None of no images."""
    if not images.refs:
        return None
    size = ready.pictures.own_size
    x_nchw, labels_n = load_report(ready.model, images, ready.mission, size)
    return Judge(masked_scores(ready.graph, x_nchw, {}), labels_n, ready.mission)


def lost(ready: Opened, images: ImageSet, judge: Judge | None, network: Graph) -> str:
    """Points that a network loses on images, and its divergence there: two cells of a table."""
    if judge is None:
        return "|"
    size = network.input.shape[1], network.input.shape[2]
    x_nchw, _ = load_report(ready.model, images, ready.mission, size)
    found = judge.verdict(masked_scores(network, x_nchw, {}))
    return f"{found.expected_loss_pp:+.2f} / {found.loss_pp:+.2f} | {found.divergence:.3f}"


def place(text: str) -> tuple[int, float]:
    """A side and a ratio, of 144:20."""
    side, ratio = text.split(":")
    return int(side), float(ratio)


def expected(verdict: Verdict | None) -> str:
    """Points that are expected to be lost, and their standard error."""
    if verdict is None:
        return ""
    return f"{verdict.estimate_pp:+.2f} +- {verdict.estimate_uncertain_pp:.2f}"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
