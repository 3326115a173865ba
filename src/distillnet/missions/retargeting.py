"""A new mission from an atlas: a plan, new weights and what is expected, without an image."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, cost
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, Scores, closed_set, evaluation
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import ImageSet
from distillnet.job.distill import Progress, evaluate_found, pick_device
from distillnet.job.distillation import Distillation, Options, peak_rss_mb
from distillnet.job.partition import Images
from distillnet.job.provenance import Provenance, provenance_of
from distillnet.missions.designing import Design, check_classes
from distillnet.missions.files import MissionAtlas, computed_from
from distillnet.missions.following import follow
from distillnet.missions.records import Record
from distillnet.models import Model
from distillnet.search import Budget, Found, Judge, is_within
from distillnet.search.budget import in_points
from distillnet.search.known import misled_pp

__all__ = ["Made", "found_for", "retarget"]

# A network, and how often the original and it are right on the atlas's samples.
Made = tuple[Found, tuple[Evaluation, Evaluation]]

_NOTHING = ImageSet(())
# Ratios that are tried within a loss: from the first, by steps, until one is too much.
_FIRST, _STEP, _LEAST = 2.5, 1.3, 1.1
_MOST_TRIALS = 5


def retarget(
    atlas: MissionAtlas,
    model: Model,
    mission: Mission,
    options: Options | None = None,
    *,
    images: ImageSet | None = None,
    smaller: Sequence[MissionAtlas] = (),
    strangers: Sequence[int] = (),
    made: Made | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Distillation:
    """Cut a network down to a mission by what an atlas knows of its classes.

    Without ``images`` the accuracies of the result are those of the atlas's samples, followed
    through both networks; with them they are measured.

    Args:
        model: the network that the atlas is of; see ``model_of``.
        images: of the mission's classes, for the figures only.
        smaller: atlases of the same images at smaller input sizes; the size that serves the budget
            best is taken.
        strangers: classes of the atlas that the network is to tell from the mission's, where a rule
            for unknown images is to be fitted to it.
        made: what ``found_for`` gave for these very options, where it was asked before.

    Raises:
        InputError: an atlas is of another network or other images, or lacks a class.
    """
    options = options or Options()
    start = time.perf_counter()
    device = pick_device(options.device)
    graph = capture_model(model).to(device)
    channels = analyse(graph)
    atlas.check_network(graph, model.weights_sha256, model.preprocessing)
    if made is None and smaller:
        made = _at_best_size(atlas, smaller, model, graph, mission, options, strangers, on_progress)
    found, (before, after) = made or found_for(
        atlas, graph, channels, mission, options, on_progress, strangers=strangers
    )
    searched = time.perf_counter()
    unreadable: tuple[str, ...] = ()
    if images is not None:
        before, (after,), unreadable = evaluate_found(
            graph, [found], model, mission, images, options, on_progress
        )
    seen = frozenset().union(*(atlas.images(index) for index in mission.indices))
    parts = Images(_NOTHING, _NOTHING, images or _NOTHING)
    held_out = provenance_of(parts).val if images else frozenset()
    counts = atlas.statistics.counts
    end = time.perf_counter()
    return Distillation(
        model=model,
        mission=mission,
        options=options,
        graph=graph.to("cpu"),
        channels=analyse(found.graph),
        found=found,
        compact=found.to("cpu").compact(),
        baseline=before,
        distilled=after,
        cost_before=cost(graph, channels),
        cost_after=cost(found.graph, analyse(found.graph), found.plan),
        layers=(),
        n_images={
            "statistics": sum(counts[index] for index in mission.indices),
            "search": 0,
            "val": before.n if images else 0,
            "unreadable": len(unreadable),
        },
        unreadable=unreadable,
        seconds={"collect": 0.0, "search": searched - start, "tune": 0.0, "total": end - start},
        peak_rss_mb=peak_rss_mb(),
        images=parts,
        provenance=Provenance(seen, frozenset(), held_out),
    )


def found_for(
    atlas: MissionAtlas,
    graph: Graph,
    channels: Channels,
    mission: Mission,
    options: Options,
    on_progress: Progress = lambda stage, done, of: None,
    design: Design | None = None,
    strangers: Sequence[int] = (),
) -> Made:
    """The network for a mission, and how often both are right on the atlas's samples.

    Args:
        on_progress: called as ("fit", layer, layers) and ("search", network, networks so far).
        design: the mission's, where it was opened before.
        strangers: see ``retarget``.
    """
    budget = options.budget
    with computed_from(atlas):
        design = design or Design.of(graph, channels, atlas, mission, options, strangers)
        tried = _Workshop(atlas, design, on_progress).within(budget)
    if not tried.found.met and budget.target_macs is None and budget.target_params is None:
        raise _nothing_within(budget)
    return tried.made


def _at_best_size(
    atlas: MissionAtlas,
    smaller: Sequence[MissionAtlas],
    model: Model,
    graph: Graph,
    mission: Mission,
    options: Options,
    strangers: Sequence[int],
    on_progress: Progress,
) -> Made:
    """As ``found_for``, at the input size of the original or one of the smaller ones.

    All are judged beside the original at its own size. Where a ratio is to be reached, the network
    that is expected to lose least is taken; else the one of fewest MACs. (Divergence, by which a
    search with images compares sizes, is ruled here by what a smaller image shows otherwise.)
    """
    budget, device = options.budget, next(iter(graph.params.values())).device
    with computed_from(atlas):
        design = Design.of(graph, analyse(graph), atlas, mission, options, strangers)
        own = _Workshop(atlas, design, on_progress)
        tried = [own.within(budget)]
    for one in smaller if budget.target_params is None else ():
        size = one.preprocessing.input_size
        _check_same_images(atlas, one, mission)
        here = capture_model(model, size, like=graph).to(device)
        one.check_network(here, model.weights_sha256, model.preprocessing.with_input_size(size))
        with computed_from(one):
            design = Design.of(here, analyse(here), one, mission, options, strangers)
            tried.append(_Workshop(one, design, on_progress, beside=own).within(budget))

    def harm(one: _Tried) -> tuple[bool, float]:
        found = one.found
        by = found.verdict.estimate_pp if budget.target_macs else _cost(found).macs
        return not found.met, by

    best = min(tried, key=harm)
    if not best.found.met and budget.target_macs is None and budget.target_params is None:
        raise _nothing_within(budget)
    return best.made


def _check_same_images(atlas: MissionAtlas, other: MissionAtlas, mission: Mission) -> None:
    """Raise InputError unless the samples of both are of the same images, in the same order."""
    check_classes(other, mission)
    alike = atlas.counts(mission.indices) == other.counts(mission.indices)
    for index, name in zip(mission.indices, mission.names, strict=True):
        if not alike or atlas.images(index) != other.images(index):
            raise InputError(
                f"the atlas {other.directory} is of other images of {name} than {atlas.directory}; "
                "expected the same ones, collected with the same --samples and a smaller "
                "--input-size"
            )


def _nothing_within(budget: Budget) -> InputError:
    return InputError(
        f"found nothing within {in_points(budget.max_loss_pp)} by the atlas's samples; allow more "
        "with --max-loss, name a ratio with --target-macs, or distill with images"
    )


def _cost(found: Found) -> Cost:
    return cost(found.graph, analyse(found.graph), found.plan)


@dataclass(frozen=True)
class _Tried:
    """A network at a ratio."""

    found: Found
    evaluations: tuple[Evaluation, Evaluation]

    @property
    def made(self) -> Made:
        return self.found, self.evaluations

    def stopped_by(self, why: str) -> "_Tried":
        return replace(self, found=replace(self.found, stopped_by=why))


class _Workshop:
    """Makes networks of a mission at ratios, and judges them by the samples.

    Args:
        beside: the workshop of the original's own size, which ratios and losses are told from.
    """

    def __init__(
        self,
        atlas: MissionAtlas,
        design: Design,
        on_progress: Progress,
        beside: "_Workshop | None" = None,
    ) -> None:
        self.atlas, self.design, self.on_progress = atlas, design, on_progress
        self.own = beside or self
        indices = design.mission.indices
        counts = torch.tensor(atlas.counts(indices))
        self.labels_r = torch.arange(len(indices)).repeat_interleave(counts)
        self.reference_rk = torch.zeros(0)  # the original's scores, once a network was made
        self.tried = 0

    def within(self, budget: Budget) -> _Tried:
        """The network that reaches a ratio, or the smallest that is expected to be in a loss.

        Where there is none, it is one that is not ``met``.
        """
        if budget.target_macs or budget.target_params:
            ratio = budget.target_macs or budget.target_params or 1.0
            of: Callable[[Cost], int] = (
                (lambda c: c.macs) if budget.target_macs else (lambda c: c.params)
            )
            tried = self._try(budget, ratio, of)
            reached = of(self.own.design.uncut) / of(_cost(tried.found))
            tried = replace(tried, found=replace(tried.found, met=reached >= ratio))
            return tried.stopped_by("the ratio that was to be reached")
        ratio, best = _FIRST, self._try(budget, _FIRST)
        step = _STEP if best.found.met else 1 / _STEP
        while ratio * step > _LEAST and self.tried < _MOST_TRIALS:
            before, ratio = ratio, ratio * step
            tried = self._try(budget, ratio)
            if step < 1 and tried.found.met:
                return tried.stopped_by(f"the next smaller network ({before:.2f}x)")
            if step > 1 and not tried.found.met:
                return best.stopped_by(f"the next smaller network ({ratio:.2f}x)")
            best = tried
        return best.stopped_by("the number of networks that are tried")

    def _try(
        self, budget: Budget, ratio: float, of: Callable[[Cost], int] = lambda c: c.macs
    ) -> _Tried:
        design, mission = self.design, self.design.mission
        there = of(design.uncut) / of(self.own.design.uncut)  # what the size alone leaves
        plan = design.plan(max(1.0, ratio * there), of)
        followed = follow(
            design.graph,
            design.channels,
            plan,
            self._rows,
            design.evidence.needs,
            on_layer=lambda n, of: self.on_progress("fit", n, of),
        )
        self.tried += 1
        self.on_progress("search", self.tried, self.tried)
        n = len(self.labels_r)  # behind them are strangers' samples
        if self.own is self:
            self.reference_rk = followed.before_rk[:n].cpu()
        before, after = self.own.reference_rk, followed.after_rk[:n].cpu()
        judge = Judge(before, self.labels_r, mission)
        verdict = judge.verdict(after)
        if judge.seen:  # what such samples hide was not measured
            pixels = math.prod(design.graph.input.shape) / math.prod(
                self.own.design.graph.input.shape
            )
            verdict = verdict.less_certain(misled_pp(pixels))
        found = Found(plan, {}, {}, verdict, is_within(budget, verdict), followed.graph)
        indices = torch.tensor(mission.indices)[self.labels_r]
        told = tuple(
            evaluation(closed_set(scores, mission), mission, scores)
            for scores in (Scores(before, indices), Scores(after, indices))
        )
        return _Tried(found, (told[0], told[1]))

    def _rows(self, record: Record) -> torch.Tensor:
        rows = self.atlas.rows(record, self.design.mission.indices)
        if strangers := self.design.strangers:
            rows = torch.cat([rows, self.atlas.rows(record, strangers, len(rows) // 2)])
        return rows.to(next(iter(self.design.graph.params.values())).device)
