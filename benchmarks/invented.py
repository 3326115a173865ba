"""How good a search is on invented missions, whose losses are known: in a minute, without networks.

    python benchmarks/invented.py [--missions 300] [--seen] [--confidence 0.5,0.6,0.7,0.8,0.9]
    git worktree add OLD 90b5680
    PYTHONPATH=OLD/src python benchmarks/invented.py                            an earlier state

A mission is a valley: each input size loses a point at so many times less work, best at one of
them, and what is lost grows as a power of the work saved. Verdicts err as those of the yardstick
do: all of a mission alike, each by itself, and those of fitted images flatter. Printed are how
large a share of the saving is found that a search would find which knew all losses (it is allowed
0.7 points), how often more than a point is lost, how many candidates and cross-validations it
takes, and how many of both the longest tenth takes at least.
"""

import argparse
import itertools
import math
from collections.abc import Callable
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from distillnet.cut.plan import Plan
from distillnet.images.preprocessing import Size
from distillnet.search import known
from distillnet.search.allocation import Cut
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate
from distillnet.search.explorer import Explorer
from distillnet.search.judge import Verdict
from distillnet.search.store import NOWHERE

try:  # states of before 9f7ce13 had two ways of searching
    from distillnet.search.few import explorer_of  # type: ignore[import-not-found]
except ImportError:
    explorer_of = Explorer

SIZES = [(side, side) for side in range(224, 79, -16)]
WORK, ALIKE = 100.0, 0.65  # the share of an error's variance that all verdicts of a mission have


class Invented:
    """Stands in for a ``Workshop``.

    Args:
        images: that weights are fitted on.
        error: the standard error of a verdict, in points.
    """

    def __init__(
        self, seed: int, images: int, error: float, *, few: bool, seen: bool = False
    ) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.few, self.seen, self.n_fitted, self.error = few, seen, images, error
        self.flattering = True  # images judge that weights were fitted on
        self.labels: object = True  # which win some points back
        self.work, self.original_size, self.store = WORK, SIZES[0], NOWHERE
        self.here = SimpleNamespace(channels=SimpleNamespace(count=1))
        self.size = self.original_size
        self.knee = rng.uniform(math.log(1.6), math.log(20))  # where a point more is lost
        self.gained = rng.choice([0, 0, 0, 1, 3])
        self.best, self.narrow = rng.uniform(math.log(112), math.log(224)), rng.uniform(0.5, 4)
        self.power = rng.uniform(1.2, 2.2)
        self.alike = error * math.sqrt(ALIKE) * rng.normal()
        self.usual = min(0.5, 90 / images)
        self.flattered = self.usual * (1 + 0.6 * rng.normal())
        self.made = self.crossed = 0
        self.truth: dict[tuple[Size, float], tuple[float, float]] = {}  # and what the images say

    def lost(self, size: Size, ratio: float) -> float:
        """Points, of a network with ``ratio`` times less to do."""
        knee = self.knee - self.narrow * (math.log(size[0]) - self.best) ** 2
        return math.exp(self.power * (math.log(ratio) - knee)) - self.gained

    def go_to(self, size: Size) -> None:
        """Work at an input size."""
        self.size = size

    def work_left(self, cut: float | Cut) -> float:
        """A candidate is what it leaves to do; anything else is the network uncut."""
        return cut if isinstance(cut, float) else WORK * (self.size[0] / SIZES[0][0]) ** 2

    def make(self, enough: Callable[[float], bool]) -> Candidate | None:
        """The candidate that is cut as little as is enough, about."""
        self.made += 1
        low, work = 0.3, WORK * (self.size[0] / SIZES[0][0]) ** 2
        if not enough(work):
            if not enough(low):
                return None
            for _ in range(40):
                middle = (low + work) / 2
                low, work = (middle, work) if enough(middle) else (low, middle)
            work = low * (1 - abs(0.01 * self.rng.normal()))
        lost = self.lost(self.size, WORK / work) + 0.25 * self.rng.normal()
        own = self.error * math.sqrt(1 - ALIKE) * self.rng.normal()
        self.truth[self.size, work] = lost, lost + self.alike + own
        flattered = self.flattered * (1 + 0.4 * max(0, lost)) + 0.6 * self.usual * self.rng.normal()
        if self.seen:  # earlier states know of nothing that is hidden
            hidden_pp = getattr(known, "hidden_pp", lambda pixels: 0.0)
            flattered += hidden_pp((self.size[0] / self.original_size[0]) ** 2)
        verdict = self._verdict(lost + self.alike + own - flattered)
        return Candidate(self.size, Plan(), None, work, torch.zeros(1), verdict)

    def cross_validate(self, candidate: Candidate) -> Verdict:
        """What images say that were not fitted."""
        self.crossed += 1
        return self._verdict(self.truth[candidate.size, candidate.work][1])

    def _verdict(self, lost: float) -> Verdict:
        error = self.error * math.exp(0.15 * self.rng.normal())
        worst = lost + 1.0 + 1.2 * self.rng.normal()
        return Verdict(
            lost, lost, (lost,), 0.0, estimate_pp=lost, estimate_uncertain_pp=error,
            class_estimates_pp=(worst,), original_wrong_pp=3.0,
        )  # fmt: skip

    def most(self) -> float:
        """How many times less there is to do where 0.7 points are lost, at the best size."""
        steps = np.exp(np.linspace(0, math.log(80), 400))
        return max(
            float(ratio)
            for size in SIZES
            for ratio in steps
            if ratio == 1
            or (self.lost(size, ratio) <= 0.7 and ratio >= (SIZES[0][0] / size[0]) ** 2)
        )


def searched(mission: Invented, confidence: float) -> tuple[float, float]:
    """The share of the saving, as a logarithm, and the points that are lost."""
    stand_in: Any = mission
    search = explorer_of(stand_in, Budget(1.0, confidence=confidence), lambda done, of: None)
    chosen = search.choose(SIZES)
    if chosen is None:
        return -math.log(mission.most()), 0.0
    candidate = search.done[chosen]
    lost, _ = mission.truth[candidate.size, candidate.work]
    return math.log(WORK / candidate.work / mission.most()), lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--missions", type=int, default=300)
    parser.add_argument("--seen", action="store_true", help="images that the network knows")
    parser.add_argument(
        "--confidence", default="0.7", help="that the budget holds; some, by commas"
    )
    args = parser.parse_args()
    columns = (
        "confidence",
        "images",
        "share of the saving",
        "beyond the budget",
        "mean loss",
        "candidates",
    )
    print("| " + " | ".join((*columns, "validated", "longest tenth")) + " |")
    print("|---" * 8 + "|")
    kinds = ((200, 0.55, True), (400, 0.55, True), (1000, 0.35, False))
    confidences = [float(confidence) for confidence in args.confidence.split(",")]
    for confidence, (images, error, few) in itertools.product(confidences, kinds):
        missions = [
            Invented(seed, images, error, few=few, seen=args.seen) for seed in range(args.missions)
        ]
        found = [searched(mission, confidence) for mission in missions]
        share = math.exp(fmean(share for share, _ in found))
        beyond, lost = fmean(lost > 1 for _, lost in found), fmean(lost for _, lost in found)
        made, crossed = (fmean(getattr(one, of) for one in missions) for of in ("made", "crossed"))
        longest = np.quantile([one.made + one.crossed for one in missions], 0.9)
        print(
            f"| {confidence:g} | {images} | {share:.3f} | {beyond:.2f} | {lost:+.2f} "
            f"| {made:.1f} | {crossed:.1f} | {longest:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
