"""What a short distillation wins back of a candidate, on images that nothing else saw.

    python benchmarks/tuning.py MISSION --side 144 --ratio 6 --data DATA

MISSION is the name of one of the yardstick's (``verdict_cases.CASES``), of the half that rules are
developed on: settings chosen by its report images must not be reported of them.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.job.pictures import Pictures
from distillnet.refit.tune import Lessons, TuneSettings, _divergence, _Views, prepare, tune
from distillnet.search.candidates import Workshop
from distillnet.search.judge import Judge
from distillnet.search.settings import SearchSettings
from verdict_cases import cases, load, load_report, open_case

HELD_OUT = TuneSettings.groups  # every fifth image, as job.tuning has it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mission", choices=[case.name for case in cases("develop")])
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--ratio", type=float, required=True, help="of MACs")
    parser.add_argument("--step", type=float, default=TuneSettings.step)
    parser.add_argument("--temperature", type=float, default=TuneSettings.temperature)
    parser.add_argument("--steps", type=int, default=TuneSettings.steps)
    parser.add_argument("--crops", type=int, default=TuneSettings.crops)
    shares = (TuneSettings.share, 1.0)
    parser.add_argument("--shares", type=float, nargs="+", default=shares, help="of the way")
    parser.add_argument("--per-class", type=int, help="images; default: the mission's")
    args = parser.parse_args()
    case = next(case for case in cases("develop") if case.name == args.mission)
    case = replace(case, per_class=args.per_class or case.per_class)
    model = load(case.network, args.data)
    mission, images = open_case(case, model, args.data)
    graph, size = capture_model(model), (args.side, args.side)
    macs = cost(graph, analyse(graph)).macs
    pictures = Pictures(model, mission, images, macs=macs, device=torch.device("cpu"))
    labels_n = torch.cat([pictures.labels_statistics(), pictures.labels()])
    no_views = SearchSettings(more_views=False)  # training has its own
    workshop = Workshop(pictures.sized, pictures.own_size, mission, labels_n, no_views)
    workshop.go_to(size)
    own_x, report_labels = load_report(model, images.val, mission, pictures.own_size)
    here_x, _ = load_report(model, images.val, mission, size)
    reported = Judge(masked_scores(graph, own_x, {}), report_labels, mission)
    whole_x, original = workshop.here.x_nchw, workshop.original
    held_out_n = torch.arange(len(whole_x)) % HELD_OUT == 0
    left_out = Judge(
        masked_scores(original.graph, original.x_nchw[held_out_n], {}),
        labels_n[held_out_n],
        mission,
    )

    def say(name: str, network: Graph) -> None:
        by = []
        for judge, x_nchw in ((reported, here_x), (left_out, whole_x[held_out_n])):
            verdict = judge.verdict(masked_scores(network, x_nchw, {}))
            points = f"{verdict.expected_loss_pp:+.2f} / {verdict.loss_pp:+.2f}"
            by.append(f"{points}, {verdict.divergence:.3f} nats")
        nats = mixed_divergence(network, lessons, whole_x, held_out_n)
        print(f"{name}: {by[0]}; by those held out {by[1]}, mixed {nats:.3f} nats", flush=True)

    settings = TuneSettings(
        steps=args.steps, step=args.step, temperature=args.temperature, crops=args.crops, share=1.0
    )
    lessons = prepare(original.graph, original.x_nchw, mission.indices, settings)

    candidate = workshop.make(lambda cut: workshop.work_left(cut) <= workshop.work / args.ratio)
    if candidate is None or candidate.graph is None:
        parser.error(f"found no network of {args.ratio}x at {args.side}; choose a smaller --ratio")
    whole = replace(candidate.plan, outputs=None)
    without = workshop.refit_without(candidate, held_out_n)
    student = compact(without, analyse(without), whole)
    say("refitted on all images", compact(candidate.graph, analyse(candidate.graph), whole))
    say("without those held out", student)
    start = time.perf_counter()
    done = tune(student, lessons, whole_x, torch.nonzero(~held_out_n)[:, 0])
    print(f"tuned without those held out in {time.perf_counter() - start:.0f} s:")
    for share in args.shares:
        params = {
            name: t.lerp(done.params[name], share) if t.is_floating_point() else t
            for name, t in student.params.items()
        }
        say(f"{share:g} of the way", replace(done, params=params))


def mixed_divergence(network: Graph, lessons: Lessons, x_nchw: Tensor, held_out_n: Tensor) -> float:
    """KL(original || network) in nats, on mixtures of images that were held out.

    Nobody has seen those, not even an original that knows the images themselves by heart.
    """
    views, images = (
        _Views(x_nchw, lessons.x_nchw, lessons.settings),
        torch.nonzero(held_out_n)[:, 0],
    )
    each = []
    for view in range(2, views.count):
        x = views.of_student(torch.full_like(images, view), images)
        now = masked_scores(network, x, {})[:, list(lessons.outputs)]
        each.append(float(_divergence(lessons.aims[view, images], now)))
    return sum(each) / len(each)


if __name__ == "__main__":
    main()
