"""The yardstick of the verdict: many missions, every candidate of each, and rules that choose one.

    python benchmarks/verdict.py measure --data DATA --cache CACHE [--only PART-OF-A-NAME]
    python benchmarks/verdict.py compare --cache CACHE
    python benchmarks/verdict.py rows --cache CACHE

``measure`` makes the candidates of each mission on a grid of input sizes and works and keeps what
the search images and the report images say of each; it goes on where it was stopped. ``compare``
then lets every rule choose from what the search images say, in seconds, and prints what it saves,
how far its expected loss is from what the report images find, and how often it breaks the budget by
more than chance. ``rows`` prints what the images say of each candidate: points lost by squared
probabilities / by errors. Rules were developed on the missions of one half; the other half is for
the report.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from distillnet.classes import Mission, parse_mission
from distillnet.cli.memory import keep_freed_memory
from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.images import ImageSet, limit, load_all, open_images
from distillnet.images.folders import split
from distillnet.images.preprocessing import Size
from distillnet.job.partition import Images
from distillnet.job.pictures import Pictures
from distillnet.models import Model, load_model
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate, Workshop
from distillnet.search.judge import Estimate, Judge, Verdict, estimate, is_within, log_probabilities

NETTE_A = "tench,English springer,cassette player,chain saw,church"
NETTE_B = "French horn,garbage truck,gas pump,golf ball,parachute"


@dataclass(frozen=True)
class Case:
    """A mission of the yardstick.

    Attributes:
        source: nette (train for the search, val for the report) or own.
        classes: names, or places among the folders of ``own``.
        per_class: images that the search has of each class.
    """

    network: str
    source: str
    classes: str
    per_class: int
    seed: int = 0

    @property
    def name(self) -> str:
        parts = (self.network, self.source, self.classes, self.per_class, self.seed)
        return "-".join(map(str, parts))


MISSIONS = {"A": NETTE_A, "B": NETTE_B, "all": f"{NETTE_A},{NETTE_B}"}

CASES = (
    Case("SqueezeNet", "nette", "A", 100),
    Case("SqueezeNet", "nette", "B", 100),
    Case("SqueezeNet", "own", "0,1,3,4,7", 40),
    Case("SqueezeNet", "own", "2,5,6,8,9,10", 20),
    Case("GoogLeNet", "nette", "B", 100),
    Case("GoogLeNet", "nette", "A", 100),
    Case("GoogLeNet", "own", "0,1,3,4,7", 40),
    Case("GoogLeNet", "own", "2,5,6,8,9,10", 20),
    Case("MobileNet", "own", "0,1,3,4,7", 40),
    Case("MobileNet", "own", "2,5,6,8,9,10", 30),
    Case("MobileNet", "nette", "B", 50),
    Case("MobileNet", "nette", "A", 100),
    Case("SqueezeNet", "own", "0,1,2,3,4,5,6,7", 30),
    Case("SqueezeNet", "own", "0,1,2,3,4,5,6,7,8,9,10,11", 30),
    Case("SqueezeNet", "nette", "B", 20),
    Case("SqueezeNet", "nette", "A", 50),
    Case("SqueezeNet", "own", "1,8,11", 40),
    Case("SqueezeNet", "own", "4,6,9", 25),
    Case("GoogLeNet", "own", "4,5,6,7,8,9,10,11", 30),
    Case("GoogLeNet", "own", "0,1,2,3,4,5,6,7", 30),
    Case("SqueezeNet", "nette", "all", 50),
    Case("MobileNet", "own", "0,1,2,3,4,5,6,7,8,9,10,11", 30),
)
RATIOS = {
    "SqueezeNet": (2.6, 3.8, 5.5, 8.0),
    "GoogLeNet": (3.0, 4.5, 6.5, 10.0),
    "MobileNet": (1.2, 1.5, 1.9, 2.5),
}
CROSSED, MOST_CROSSED_PP = 3, 2.5  # the smallest so many that are expected to lose no more
SIDES = (224, 176, 144)


def half(case: Case) -> str:
    """Which half a mission belongs to: rules are developed on the first of each two."""
    return ("develop", "report")[CASES.index(case) % 2]


def load(network: str, data: Path) -> Model:
    """A network of the yardstick with its weights."""
    weights = data / "weights"
    match network:
        case "SqueezeNet":
            return load_model(
                "torchvision:squeezenet1_0", weights=weights / "squeezenet1_0.safetensors"
            )
        case "GoogLeNet":
            return load_model("zoo:bvlc_googlenet", weights=weights / "bvlc_googlenet.safetensors")
        case "MobileNet":
            return load_model(
                f"{data / 'models' / 'mobilenet_v1.py'}:build",
                weights=data / "models" / "mobilenet_v1_075.safetensors",
                input_size=224,
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                class_names=data / "imagenet_classes.tsv",
            )
    raise ValueError(network)


def open_case(case: Case, model: Model, data: Path) -> tuple[Mission, Images]:
    """The mission and its images: two like parts to search on, and others to report on."""
    if case.source == "nette":
        mission = parse_mission(MISSIONS[case.classes], model.classes)
        folders = open_images(data / "imagenette", model.classes, mission.indices)
        assert folders.val is not None
        seen, report = limit(folders.train, case.per_class, case.seed), folders.val
    else:
        names = sorted(path.name for path in (data / "own").iterdir())
        chosen = [names[int(place)] for place in case.classes.split(",")]
        mission = parse_mission(chosen, model.classes)
        everything = open_images(data / "own", model.classes, mission.indices).train
        seen = limit(everything, case.per_class, case.seed)
        kept = set(seen.refs)
        report = ImageSet(tuple(ref for ref in everything.refs if ref not in kept))
    statistics, search = split(seen, 0.5, case.seed)
    return mission, Images(statistics, search, report, alike=True)


def measure(case: Case, data: Path, path: Path) -> None:
    """Make every candidate of a mission; what was made before is kept."""
    model = load(case.network, data)
    mission, images = open_case(case, model, data)
    graph = capture_model(model)
    macs = cost(graph, analyse(graph)).macs
    pictures = Pictures(model, mission, images, macs=macs, device=torch.device("cpu"))
    labels_n = torch.cat([pictures.labels_statistics(), pictures.labels()])
    start = time.perf_counter()
    workshop = Workshop(
        pictures.sized, pictures.own_size, mission, labels_n, split=True, param_weight=0.1
    )
    report = load_report(model, images.val, mission, pictures.own_size)
    done: dict[str, Any] = {"rows": []}
    if path.exists():
        done = torch.load(path, weights_only=True)
    else:
        done["labels"], done["seen"] = workshop.judge.labels_n, workshop.judge.seen
        done["reference"] = workshop.judge.reference
        done["report_labels"] = report[1]
        scores = masked_scores(graph, report[0], {})
        done["report_reference"] = log_probabilities(scores, mission)
    known = {(row["side"], row["ratio"]) for row in done["rows"]}
    workshop.go_to((176, 176))
    workshop.choose_teacher()
    made: dict[tuple[int, float], Candidate] = {}
    for side, ratio in [(side, ratio) for side in SIDES for ratio in RATIOS[case.network]]:
        if (side, ratio) in known:
            continue
        began = time.perf_counter()
        workshop.go_to((side, side))
        here, allowed = workshop.here, workshop.work / ratio
        row: dict[str, Any] = {"side": side, "ratio": ratio}
        if cost(here.graph, here.channels).macs > allowed:
            candidate = workshop.make(lambda cut: workshop.work_left(cut) <= allowed)  # noqa: B023
            if candidate is not None and candidate.graph is not None:
                x_report = load_report(model, images.val, mission, (side, side))[0]
                after = cost(candidate.graph, here.channels, candidate.plan)
                small = compact(candidate.graph, here.channels, candidate.plan)
                scores = masked_scores(small, x_report, {})
                row |= {
                    "mac_ratio": macs / after.macs,
                    "now": log_probabilities(candidate.scores_nk, mission).float(),
                    "report_now": torch.log_softmax(scores.double(), 1).float(),
                    "estimate": candidate.verdict.estimate_pp,
                }
                made[side, ratio] = replace(candidate, graph=None)
        row["seconds"] = time.perf_counter() - began
        done["rows"].append(row)
        torch.save(done, path)
        say(case, row, start)
    promising = [row for row in done["rows"] if row.get("estimate", math.inf) < MOST_CROSSED_PP]
    for row in sorted(promising, key=lambda row: -row["mac_ratio"])[:CROSSED]:
        key = row["side"], row["ratio"]
        if key in made and "cross" not in row:
            began = time.perf_counter()
            row["cross"] = log_probabilities(workshop.cross_scores(made[key]), mission).float()
            row["seconds"] = time.perf_counter() - began
            torch.save(done, path)
            say(case, row, start)


def say(case: Case, row: dict[str, Any], start: float) -> None:
    """What was done, and how long it took."""
    print(
        f"{case.name} {row['side']} {row['ratio']} {row['seconds']:.1f} s, "
        f"{time.perf_counter() - start:.0f} s in all",
        flush=True,
    )


def load_report(
    model: Model, images: ImageSet, mission: Mission, size: Size
) -> tuple[Tensor, Tensor]:
    """Report images and their positions in the mission."""
    loaded = load_all(images, model.preprocessing.with_input_size(size))
    return loaded.x_nchw, torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])


# Rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What a rule returned: a candidate, or None, with the loss expected and found."""

    mac_ratio: float
    expected_pp: float
    uncertain_pp: float
    found_pp: float
    found_uncertain_pp: float


Rule = Callable[[dict[str, Any], dict[str, Any]], Estimate]


def as_before(mission: dict[str, Any], row: dict[str, Any]) -> Estimate:
    """The rule until 1500d87, on these candidates: expected loss, counted errors, worst class."""
    wrong = errors(row["now"], mission["labels"]) - errors(mission["reference"], mission["labels"])
    hopes = chances(mission["reference"], mission["labels"])
    more = hopes - chances(row["now"], mission["labels"])
    n = len(more)
    by_class = [float(wrong[mission["labels"] == c].mean()) for c in mission["labels"].unique()]
    expected, uncertain = float(more.mean()), float(more.square().mean() / n) ** 0.5
    limit = min(1.0, 1.5 - 2 * uncertain)
    one_image = 100 / int(torch.bincount(mission["labels"]).min())
    within = (
        expected <= limit
        and float(wrong.mean()) <= 1 + float(wrong.square().mean() / n) ** 0.5
        and max(by_class) <= max(3.0, one_image)
    )
    return Estimate(expected, uncertain, 0.0 if within else math.inf)


def of_now(mission: dict[str, Any], row: dict[str, Any]) -> Estimate:
    """The search's own, on the images that were fitted on; with the risk of sizes where known."""
    verdict = judged(mission, row["now"])
    if mission["seen"]:
        verdict = verdict.flattered((224 / row["side"]) ** 2 - 1)
    return estimate(verdict)


def of_both(mission: dict[str, Any], row: dict[str, Any]) -> Estimate:
    """The search's own, with cross-validation where it was made and images are new."""
    if mission["seen"] or "cross" not in row:
        return of_now(mission, row)
    return estimate(judged(mission, row["now"]).between(judged(mission, row["cross"])))


RULES: dict[str, Rule] = {"before": as_before, "fitted": of_now, "both": of_both}


def judged(mission: dict[str, Any], log_p_nk: Tensor) -> Verdict:
    """The judge's verdict on closed-set log-probabilities."""
    n_classes = log_p_nk.shape[1]
    named = Mission(tuple(range(n_classes)), tuple(map(str, range(n_classes))))
    return Judge(mission["reference"], mission["labels"], named).verdict(log_p_nk)


def errors(log_p_nk: Tensor, labels_n: Tensor) -> Tensor:
    """100 where a decision is wrong (N,)."""
    return 100 * (log_p_nk.argmax(1) != labels_n).double()


def chances(log_p_nk: Tensor, labels_n: Tensor) -> Tensor:
    """Probability of the right class, in points (N,)."""
    return 100 * log_p_nk.double().exp().gather(1, labels_n[:, None])[:, 0]


def allows(rule: Rule, budget: Budget, expected: Estimate) -> bool:
    """Whether a rule lets a candidate pass."""
    if rule is as_before:
        return expected.worst_class_pp < math.inf
    worst = (expected.worst_class_pp,)
    made = Verdict(0.0, 0.0, worst, 0.0, estimate_pp=expected.loss_pp, class_estimates_pp=worst)
    return is_within(budget, replace(made, estimate_uncertain_pp=expected.uncertain_pp))


def choose(mission: dict[str, Any], rule: Rule, budget: Budget) -> Choice:
    """The smallest candidate that a rule lets pass; the original where there is none."""
    best = Choice(1.0, 0.0, 0.0, 0.0, 0.0)
    for row in mission["rows"]:
        if "now" not in row or row["mac_ratio"] <= best.mac_ratio:
            continue
        expected = rule(mission, row)
        if not allows(rule, budget, expected):
            continue
        labels = mission["report_labels"]
        lost = errors(row["report_now"], labels) - errors(mission["report_reference"], labels)
        best = Choice(
            row["mac_ratio"],
            expected.loss_pp,
            expected.uncertain_pp,
            float(lost.mean()),
            max(100 / len(lost), float(lost.std())) / len(lost) ** 0.5,
        )
    return best


def compare(cache: Path, budget: Budget) -> None:
    """Print what each rule chooses of the missions that were measured, half by half."""
    missions = [
        (case, torch.load(cache / f"{case.name}.pt", weights_only=True))
        for case in CASES
        if (cache / f"{case.name}.pt").exists()
    ]
    for part in ("develop", "report"):
        mine = [(case, mission) for case, mission in missions if half(case) == part]
        print(f"\n### {part}: {len(mine)} missions\n")
        print("| mission | " + " | ".join(RULES) + " |")
        print("|---" * (1 + len(RULES)) + "|")
        chosen = {
            name: [choose(mission, rule, budget) for _, mission in mine]
            for name, rule in RULES.items()
        }
        for i, (case, _) in enumerate(mine):
            cells = [
                f"{c.mac_ratio:.2f}x, {c.found_pp:+.1f} (expected {c.expected_pp:+.1f})"
                for c in (chosen[name][i] for name in RULES)
            ]
            print(f"| {case.name} | " + " | ".join(cells) + " |")
        for what, figure in FIGURES.items():
            cells = [figure(chosen[name], budget) for name in RULES]
            print(f"| **{what}** | " + " | ".join(cells) + " |")


def print_rows(cache: Path) -> None:
    """Print what the search images, fitted on or not, and the report images say of candidates."""
    print("| mission | side | MACs | fitted | not fitted | report |")
    print("|---" * 6 + "|")
    for case in CASES:
        path = cache / f"{case.name}.pt"
        if not path.exists():
            continue
        mission = torch.load(path, weights_only=True)
        report = {"reference": mission["report_reference"], "labels": mission["report_labels"]}
        for row in mission["rows"]:
            if "now" not in row:
                continue
            parts = [(mission, "now"), (mission, "cross"), (report, "report_now")]
            cells = [
                f"{(v := judged(of, row[name])).expected_loss_pp:+.2f} / {v.loss_pp:+.2f}"
                if name in row
                else ""
                for of, name in parts
            ]
            name = f"| {case.name} | {row['side']} | {row['mac_ratio']:.2f}x | "
            print(name + " | ".join(cells) + " |")


def _held(choice: Choice) -> bool:
    wide = 1.96 * math.hypot(choice.uncertain_pp, choice.found_uncertain_pp)
    return abs(choice.found_pp - choice.expected_pp) <= wide


FIGURES: dict[str, Callable[[list[Choice], Budget], str]] = {
    "MACs, geometric mean": lambda chosen, budget: (
        f"{math.exp(fmean(math.log(c.mac_ratio) for c in chosen)):.2f}x"
    ),
    "found less expected, mean": lambda chosen, budget: (
        f"{fmean(c.found_pp - c.expected_pp for c in chosen):+.2f}"
    ),
    "interval holds what is found": lambda chosen, budget: (
        f"{sum(map(_held, chosen))} of {len(chosen)}"
    ),
    "beyond the budget": lambda chosen, budget: (
        f"{sum(c.found_pp > budget.max_loss_pp for c in chosen)} of {len(chosen)}"
    ),
    "beyond it by more than chance": lambda chosen, budget: (
        f"{sum(c.found_pp - 1.96 * c.found_uncertain_pp > budget.max_loss_pp for c in chosen)}"
        f" of {len(chosen)}"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("measure", "compare", "rows"))
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", default="", help="part of a mission's name")
    parser.add_argument("--max-loss", type=float, default=1.0)
    parser.add_argument("--confidence", type=float, default=Budget().confidence)
    args = parser.parse_args()
    args.cache.mkdir(exist_ok=True)
    keep_freed_memory()
    if args.what == "rows":
        print_rows(args.cache)
        return
    if args.what == "compare":
        compare(args.cache, Budget(args.max_loss, confidence=args.confidence))
        return
    for case in CASES:
        if args.only in case.name:
            measure(case, args.data, args.cache / f"{case.name}.pt")


if __name__ == "__main__":
    main()
