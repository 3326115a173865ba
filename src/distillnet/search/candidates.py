"""Candidates of the best search: made by cutting and refitting at an input size, and judged.

Where statistics and search images are drawn alike, candidates are judged by cross-validation: in
each of two folds one half of all images fits the weights and the other judges them, so that each
image judges weights that have not seen it. (The orders have seen the statistics images; they ask
for no label.) Otherwise there is one fold: statistics fit, search images judge. Three folds took
twice the time for the same ratios.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import class_work
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.replay import masked_scores
from distillnet.images.preprocessing import Size
from distillnet.refit.compensation import compensate
from distillnet.refit.teacher import Teacher, teach
from distillnet.search.allocation import Cut, channel_plan, cut_to_size, open_ledger
from distillnet.search.evidence import Evidence, measure_evidence
from distillnet.search.judge import Judge, Verdict
from distillnet.search.orders import Order, elimination_orders
from distillnet.search.splits import Spectrum, spectra

__all__ = ["Candidate", "Fold", "Importance", "Sized", "Workshop", "make_folds"]

_FOLDS = 2
_BYTES = 10**9  # of a fold's teacher's answers, and of values kept between layers twice that

Importance = Callable[[Evidence], NDArray[np.float64]]


@dataclass(frozen=True)
class Sized:
    """The original network captured at one input size, and the images at that size.

    Attributes:
        x_nchw: statistics images, then search images; the same at every size.
    """

    graph: Graph
    channels: Channels
    x_nchw: Tensor
    n_statistics: int

    @property
    def x_statistics(self) -> Tensor:
        """What orders of elimination are measured on."""
        return self.x_nchw[: self.n_statistics]

    @property
    def x_search(self) -> Tensor:
        return self.x_nchw[self.n_statistics :]


@dataclass(frozen=True)
class Fold:
    """Positions in ``Sized.x_nchw`` of the images that fit weights, and of those that judge."""

    fit: Tensor
    judge: Tensor


@dataclass(frozen=True)
class Candidate:
    """A plan at an input size, and what the images say of it.

    Attributes:
        graph: refitted, in the original shapes; None once its weights are not needed any more.
        work: what is left of MACs, or of what stands for time; see ``cost.class_work``.
        scores: on the images that judge in the first fold and, where asked, in others.
        verdict: on all images that there are scores of.
    """

    size: Size
    plan: Plan
    graph: Graph | None
    work: float
    scores: tuple[Tensor, ...]
    verdict: Verdict


class Workshop:
    """Makes and judges candidates, at one input size at a time.

    Args:
        sized: the network and its images at an input size.
        original_size: of the network as it came.
        labels_n: of the search images, or of all images where the statistics images may judge, too.
        importance: by channel class, what goes last; None asks the surgeon.
        split: whether layers may be written as two thinner ones.
        element: MACs that take as long as writing one number; 0 counts MACs alone.

    Attributes:
        original, here: the network at its original size, and at the present ``size``.
        work: of the original; see ``work_left``.
    """

    def __init__(
        self,
        sized: Callable[[Size], Sized],
        original_size: Size,
        mission: Mission,
        labels_n: Tensor,
        importance: Importance | None = None,
        *,
        split: bool = True,
        round_to: int = 1,
        param_weight: float = 0.0,
        element: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.load, self.mission, self.seed = sized, mission, seed
        self.importance, self.split = importance, split
        self.round_to, self.param_weight, self.element = round_to, param_weight, element
        self.original = sized(original_size)
        self.size = self.original_size = original_size
        self.here = self.original
        n = len(self.original.x_nchw)
        alike = len(labels_n) == n
        self.folds = make_folds(n, self.original.n_statistics, alike=alike)
        judging = torch.cat([fold.judge for fold in self.folds])
        scores = masked_scores(self.original.graph, self.original.x_nchw[judging], {})
        first = n - len(labels_n)
        self.judge = Judge(scores, labels_n[judging - first], mission)
        nothing = np.zeros(self.original.channels.count, dtype=bool)
        self.work = self.work_left(Cut(nothing), self.original)
        self.learns_from_original_size = True
        self.orders: tuple[Order, ...] | None = None
        self.spectra: tuple[Spectrum, ...] = ()
        self.needs: Mapping[str, Tensor] = {}
        self.teachers: dict[int, Teacher] = {}  # by fold, at the present size

    def go_to(self, size: Size) -> None:
        """Work at an input size; the orders of elimination are measured at the first."""
        if size != self.size:
            self.here = self.original if size == self.original_size else self.load(size)
            self.size = size
            self.teachers.clear()
        if self.orders is None:
            here = self.here
            evidence = measure_evidence(
                here.graph, here.channels, self.mission, here.x_statistics, self.seed
            )
            importance = None if self.importance is None else self.importance(evidence)
            self.orders = elimination_orders(here.graph, here.channels, evidence, importance)
            self.needs = evidence.needs
            if self.split:
                self.spectra = spectra(here.graph, here.channels, evidence)

    def choose_teacher(self) -> None:
        """Learn from the original's size where that helps the uncut network at the present one."""
        if self.size == self.original_size:
            return
        here = self.here
        plan = Plan(outputs=self.mission.indices)
        same = self.judge.verdict(self._scores(here.graph, plan, 0))
        refitted = self.judge.verdict(self._scores(self._refit(plan, 0), plan, 0))
        if refitted.expected_loss_pp >= same.expected_loss_pp:
            self.learns_from_original_size = False
            self.teachers.clear()

    def make(self, enough: Callable[[Cut], bool]) -> Candidate | None:
        """A candidate at the present size, cut as little as ``enough`` allows.

        None where nothing is enough.
        """
        cut = self._cut(enough)
        return self._candidate(cut) if enough(cut) else None

    def make_smallest(self) -> Candidate:
        """The candidate at the present size with all gone that can be."""
        return self._candidate(self._cut(lambda cut: False))

    def _candidate(self, cut: Cut) -> Candidate:
        """Refit and judge the network, cut, at the present size."""
        here = self.here
        plan = channel_plan(here.graph, here.channels, cut, self.mission.indices)
        graph = self._refit(plan, 0)
        scores = self._scores(graph, plan, 0)
        verdict = self.judge.verdict(scores)
        return Candidate(self.size, plan, graph, self.work_left(cut), (scores,), verdict)

    def work_left(self, cut: Cut, here: Sized | None = None) -> float:
        """What a cut leaves to do, at the present size."""
        here = here or self.here
        return class_work(here.graph, here.channels, cut.gone, cut.splits, self.element)

    def is_judged_by_all(self, candidate: Candidate) -> bool:
        """Whether a candidate has the verdict of all folds."""
        return len(candidate.scores) == len(self.folds)

    def judged_by_one_more(self, candidate: Candidate) -> Candidate:
        """The candidate with the verdict of the next fold, too."""
        fold = len(candidate.scores)
        self.go_to(candidate.size)
        refitted = self._refit(candidate.plan, fold)
        scores = (*candidate.scores, self._scores(refitted, candidate.plan, fold))
        return replace(candidate, scores=scores, verdict=self.judge.verdict(torch.cat(scores)))

    def refit_on_all(self, candidate: Candidate) -> Graph:
        """The candidate's network fitted on statistics and search images together."""
        self.go_to(candidate.size)
        self.teachers.clear()
        here = self.here
        both = _evenly(torch.arange(len(here.x_nchw)), 2 * here.n_statistics)
        x_original, x_here = (s.x_nchw[both] for s in self._both())
        return compensate(
            here.graph,
            here.channels,
            candidate.plan,
            self._teacher(x_original, x_here),
            x_here,
            needs=self.needs,
            max_bytes=2 * _BYTES,
        )

    def _cut(self, enough: Callable[[Cut], bool]) -> Cut:
        graph, channels = self.here.graph, self.here.channels
        assert self.orders is not None
        ledger = open_ledger(
            graph,
            channels,
            self.orders,
            self.mission.indices,
            self.param_weight,
            self.spectra,
            self.element,
        )
        return cut_to_size(graph, channels, ledger, enough, self.round_to)

    def _refit(self, plan: Plan, fold: int) -> Graph:
        """The network at the present size, fitted on the images that do not judge in ``fold``."""
        x_original, x_here = (s.x_nchw[self.folds[fold].fit] for s in self._both())
        if fold not in self.teachers:
            self.teachers[fold] = self._teacher(x_original, x_here)
        return compensate(
            self.here.graph,
            self.here.channels,
            plan,
            self.teachers[fold],
            x_here,
            needs=self.needs,
            max_bytes=2 * _BYTES,
        )

    def _scores(self, graph: Graph, plan: Plan, fold: int) -> Tensor:
        """Of a network, cut, on the images that judge in ``fold``."""
        small = compact(graph, self.here.channels, replace(plan, outputs=None))
        return masked_scores(small, self.here.x_nchw[self.folds[fold].judge], {})

    def _both(self) -> tuple[Sized, Sized]:
        """The network at the original size and at the present one."""
        return self.original, self.here

    def _teacher(self, x_original: Tensor, x_here: Tensor) -> Teacher:
        """What layers are to say of images, which come at the original and at the present size."""
        here = self.here.graph
        if self.learns_from_original_size:
            return teach(self.original.graph, here, x_original, max_bytes=_BYTES, seed=self.seed)
        return teach(here, here, x_here, max_bytes=_BYTES, seed=self.seed)


def make_folds(n: int, n_statistics: int, *, alike: bool) -> tuple[Fold, ...]:
    """Who fits and who judges of ``n`` images, the statistics images first.

    >>> [fold.judge.tolist() for fold in make_folds(5, 3, alike=True)]
    [[0, 2, 4], [1, 3]]
    >>> [fold.judge.tolist() for fold in make_folds(5, 3, alike=False)]
    [[3, 4]]
    """
    everyone = torch.arange(n)
    if not alike:
        return (Fold(everyone[:n_statistics], everyone[n_statistics:]),)
    # Time grows with the images that fit: no more of them where many are searched on.
    most = max(1, 2 * n_statistics * (_FOLDS - 1) // _FOLDS)
    parts = [everyone % _FOLDS == i for i in range(_FOLDS)]
    return tuple(Fold(_evenly(everyone[~part], most), everyone[part]) for part in parts)


def _evenly(positions: Tensor, most: int) -> Tensor:
    """At most so many of them, in equal distances: of all classes, which follow each other."""
    if len(positions) <= most:
        return positions
    return positions[torch.arange(most) * len(positions) // most]
