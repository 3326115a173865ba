"""The yardstick of the verdict: many missions, every candidate of each, and rules that choose one.

    python benchmarks/verdict.py measure --data DATA --cache CACHE [--part develop] [--seeds 0,1]
    python benchmarks/verdict.py compare --cache CACHE
    python benchmarks/verdict.py rows --cache CACHE
    python benchmarks/verdict.py priors --cache CACHE

``measure`` searches for the network of each mission and keeps what the search images and the report
images say of each candidate on the way, and of a few more; it goes on where it was stopped.
``compare`` then lets every rule choose from what the search images say, in seconds, and prints what
it saves, how far its expected loss is from what the report images find, and how often it breaks the
budget by more than chance. ``rows`` prints what the images say of each candidate, ``priors`` how
likely that is by what a search takes for granted of losses before any is measured
(``search.beliefs``), beside other priors. Rules were developed on the missions of ``develop``;
``report`` and ``fresh`` are for the report.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cli.process.memory import keep_freed_memory
from distillnet.search.beliefs import ALIKE, LOSS, Beliefs, place
from distillnet.search.budget import Budget
from distillnet.search.curve import Curve, Values
from distillnet.search.decision import Estimate, estimate, is_within
from distillnet.search.judge import Judge, Verdict
from distillnet.search.known import hidden_pp, misled_pp
from verdict_cases import PARTS, Case, cases, measure


@dataclass(frozen=True)
class Choice:
    """What a rule returned: a candidate, or None, with the loss expected and found."""

    mac_ratio: float
    expected_pp: float
    uncertain_pp: float
    found_pp: float
    found_uncertain_pp: float


Rule = Callable[[dict[str, Any], dict[str, Any]], Estimate | None]  # None: it does not tell


def of_fitted(mission: dict[str, Any], row: dict[str, Any]) -> Estimate | None:
    """By the images that were fitted on, before a cross-validation has told how they flatter."""
    return believed(mission, [row], validated=False)[0]


def of_crossed(mission: dict[str, Any], row: dict[str, Any]) -> Estimate | None:
    """By cross-validation."""
    return known(mission, row, judged(mission, row["cross"])) if "cross" in row else None


def of_all(mission: dict[str, Any], row: dict[str, Any]) -> Estimate | None:
    """By all candidates together, as the search has it."""
    rows = mission["rows"]
    at = next(i for i, one in enumerate(rows) if one is row)
    return believed(mission, rows)[at] if "cross" in row else None


def believed(
    mission: dict[str, Any], rows: Sequence[dict[str, Any]], *, validated: bool = True
) -> list[Estimate]:
    """What all of some candidates together let expect of each."""
    n_images = len(mission["images"].unique())
    beliefs = Beliefs(
        Budget(),
        part=1.0,
        seen=mission["seen"],
        flattering=True,
        n_fitted=n_images,
        own_size=(own_side(mission),) * 2,
        labels=True,
    )
    keys = [((row["side"], row["side"]), i) for i, row in enumerate(rows)]
    for key, row in zip(keys, rows, strict=True):
        beliefs.add(key, judged(mission, row["now"]), row["ratio"])
        if validated and "cross" in row:
            beliefs.validate(key, judged(mission, row["cross"]))
    return [estimate(beliefs.of(key)) for key in keys]


def of_both(mission: dict[str, Any], row: dict[str, Any]) -> Estimate | None:
    """By the middle of both, as the search has it where images are many."""
    if "cross" not in row:
        return None
    crossed = judged(mission, row["cross"])
    fitted = judged(mission, row["now"]).shifted(hidden(mission, row))
    return known(mission, row, fitted.towards(crossed, 0.5), corrected=True)


def of_these(mission: dict[str, Any], row: dict[str, Any]) -> Estimate | None:
    """By cross-validation, classes counting as often as the search images have them."""
    if "cross" not in row:
        return None
    return known(mission, row, judged(mission, row["cross"], shares=False))


def known(
    mission: dict[str, Any], row: dict[str, Any], verdict: Verdict, *, corrected: bool = False
) -> Estimate:
    """What to expect, less certain at small sizes where the network was trained on the images."""
    if mission["seen"]:
        verdict = verdict.less_certain(misled_pp(pixels(mission, row), corrected=corrected))
    return estimate(verdict)


def hidden(mission: dict[str, Any], row: dict[str, Any]) -> float:
    """Points that images hide which were fitted, where the network was trained on them."""
    return hidden_pp(pixels(mission, row)) if mission["seen"] else 0.0


def pixels(mission: dict[str, Any], row: dict[str, Any]) -> float:
    """Of a candidate's input, as a share of those that the original has."""
    return float(row["side"] / own_side(mission)) ** 2


def own_side(mission: dict[str, Any]) -> int:
    """Pixels that the original's input is high; caches of before f422783 do not tell."""
    return int(mission.get("own_side", 224))


RULES: dict[str, Rule] = {
    "fitted": of_fitted,
    "crossed": of_crossed,
    "all together": of_all,
    "middle": of_both,
    "crossed, classes as they come": of_these,
}


def judged(mission: dict[str, Any], log_p_nk: Tensor, *, shares: bool = True) -> Verdict:
    """The judge's verdict on closed-set log-probabilities."""
    n_classes = log_p_nk.shape[1]
    named = Mission(tuple(range(n_classes)), tuple(map(str, range(n_classes))))
    report = torch.bincount(mission["report_labels"], minlength=n_classes).tolist()
    reference, labels_n, images_n = (mission[of] for of in ("reference", "labels", "images"))
    return Judge(reference, labels_n, named, images_n, report if shares else None).verdict(log_p_nk)


def errors(log_p_nk: Tensor, labels_n: Tensor) -> Tensor:
    """100 where a decision is wrong (N,)."""
    return 100 * (log_p_nk.argmax(1) != labels_n).double()


def allows(budget: Budget, expected: Estimate) -> bool:
    """Whether a candidate of which so much is expected is within a budget."""
    worst = (expected.worst_class_pp,)
    made = Verdict(
        *(0.0, 0.0, worst, 0.0),
        estimate_pp=expected.loss_pp,
        estimate_uncertain_pp=expected.uncertain_pp,
        class_estimates_pp=worst,
        original_wrong_pp=expected.original_wrong_pp,
    )
    return is_within(budget, made)


def choose(mission: dict[str, Any], rule: Rule, budget: Budget) -> Choice:
    """The smallest candidate that a rule lets pass; the original where there is none."""
    best = Choice(1.0, 0.0, 0.0, 0.0, 0.0)
    for row in mission["rows"]:
        expected = rule(mission, row)
        smaller = row["mac_ratio"] > best.mac_ratio
        if expected is None or not smaller or not allows(budget, expected):
            continue
        found = found_pp(mission, row)
        best = Choice(row["mac_ratio"], expected.loss_pp, expected.uncertain_pp, *found)
    return best


def found_pp(mission: dict[str, Any], row: dict[str, Any]) -> tuple[float, float]:
    """What report images say is lost, and its standard error."""
    labels = mission["report_labels"]
    lost = errors(row["report_now"], labels) - errors(mission["report_reference"], labels)
    return float(lost.mean()), max(100 / len(lost), float(lost.std())) / len(lost) ** 0.5


def compare(cache: Path, budget: Budget, parts: Sequence[str], seeds: Sequence[int]) -> None:
    """Print what each rule chooses of the missions that were measured, part by part."""
    for part in parts:
        mine = [
            (case, torch.load(cache / f"{case.name}.pt", weights_only=True))
            for case in cases(part, seeds)
            if (cache / f"{case.name}.pt").exists()
        ]
        if not mine:
            continue
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


def print_rows(cache: Path, wanted: Sequence[Case]) -> None:
    """Print what the search images, fitted on or not, and the report images say of candidates."""
    print("| mission | side | MACs | fitted | not fitted | found |")
    print("|---" * 6 + "|")
    for case in wanted:
        path = cache / f"{case.name}.pt"
        if not path.exists():
            continue
        mission = torch.load(path, weights_only=True)
        for row in mission["rows"]:
            told = [rule(mission, row) for rule in (of_fitted, of_crossed)]
            cells = [f"{of.loss_pp:+.2f} +- {of.uncertain_pp:.2f}" if of else "" for of in told]
            returned = " **returned**" if row.get("chosen") else ""
            found, uncertain = found_pp(mission, row)
            print(
                f"| {case.name} | {row['side']} | {row['mac_ratio']:.2f}x | {' | '.join(cells)} | "
                f"{found:+.2f} +- {uncertain:.2f}{returned} |"
            )


def print_priors(cache: Path, wanted: Sequence[Case]) -> None:
    """Print how likely losses of candidates are by some priors, those that say most first.

    Of what images that were fitted on let expect, and of what report images find, less what known
    images hide.
    """
    curves: list[tuple[Values, Values, Values]] = []
    for path in (cache / f"{case.name}.pt" for case in wanted):
        if not path.exists():
            continue
        mission = torch.load(path, weights_only=True)
        rows = mission["rows"]
        at = np.array([place(pixels(mission, row), row["ratio"]) for row in rows])
        fitted = [judged(mission, row["now"]) for row in rows]
        found = [of_report(mission, row).shifted(-hidden(mission, row)) for row in rows]
        for verdicts in (fitted, found):
            told = np.minimum([verdict.estimate_pp for verdict in verdicts], 5.0)
            error = median(verdict.estimate_uncertain_pp for verdict in verdicts)
            curves.append((at, told, np.full(len(told), error * (1 - ALIKE) ** 0.5)))
    grid = [(LOSS, "the search's")]
    for bend, side, each, small in product((1, 2, 4), (0.25, 0.5, 1), (0.15, 0.3), (0, 1, 2)):
        prior = replace(LOSS, bend=bend, side=side, each=each, small=small)
        grid.append((prior, ""))
    likely = [
        (sum(Curve(prior, *one).likelihood() for one in curves), prior, of) for prior, of in grid
    ]
    print("| log likelihood | bend | side | each | small | |")
    print("|---" * 6 + "|")
    for total, prior, of in sorted(likely, key=lambda entry: -entry[0])[:10]:
        print(
            f"| {total:.1f} | {prior.bend} | {prior.side} | {prior.each} | {prior.small} | {of} |"
        )


def of_report(mission: dict[str, Any], row: dict[str, Any]) -> Verdict:
    """A judge's verdict by the report images."""
    n_classes = row["report_now"].shape[1]
    named = Mission(tuple(range(n_classes)), tuple(map(str, range(n_classes))))
    judge = Judge(mission["report_reference"], mission["report_labels"], named)
    return judge.verdict(row["report_now"])


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
    "interval holds what is found, taken together with its own": lambda chosen, budget: (
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
    parser.add_argument("what", choices=("measure", "compare", "rows", "priors"))
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", default="", help="part of a mission's name")
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    parser.add_argument("--seeds", default="", help="of the draw of images; each mission's own")
    parser.add_argument("--max-loss", type=float, default=1.0)
    parser.add_argument("--confidence", type=float, default=Budget().confidence)
    args = parser.parse_args()
    args.part = args.part or PARTS
    args.cache.mkdir(exist_ok=True)
    keep_freed_memory()
    seeds = [int(seed) for seed in args.seeds.split(",") if seed]
    wanted = [case for part in args.part for case in cases(part, seeds) if args.only in case.name]
    if args.what != "measure" and not any((args.cache / f"{c.name}.pt").exists() for c in wanted):
        parser.error(f"{args.cache} holds none of these missions; expected what measure keeps")
    if args.what == "rows":
        print_rows(args.cache, wanted)
        return
    if args.what == "priors":
        print_priors(args.cache, wanted)
        return
    if args.what == "compare":
        compare(args.cache, Budget(args.max_loss, confidence=args.confidence), args.part, seeds)
        return
    for case in wanted:
        path = args.cache / f"{case.name}.pt"
        if not path.exists():
            measure(case, args.data, path)


if __name__ == "__main__":
    main()
