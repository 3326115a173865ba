"""A new mission from an atlas: a plan, new weights and what is expected, without an image."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, cost
from distillnet.errors import InputError, UnsupportedError
from distillnet.evaluate import Evaluation, Scores, closed_set, evaluation
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import ImageSet
from distillnet.images.preprocessing import Size
from distillnet.job.distill import Progress, evaluate_found, pick_device
from distillnet.job.distillation import Distillation, Options, peak_rss_mb
from distillnet.job.partition import Images
from distillnet.job.provenance import Provenance, provenance_of
from distillnet.missions.designing import Design
from distillnet.missions.files import MissionAtlas
from distillnet.missions.following import follow
from distillnet.missions.records import Record
from distillnet.missions.sizing import network_at, plan_at
from distillnet.models import Model
from distillnet.search import Budget, Found, Judge, is_within

__all__ = ["found_for", "retarget"]

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
    size: Size | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Distillation:
    """Cut a network down to a mission by what an atlas knows of its classes.

    Without ``images`` the accuracies of the result are those of the atlas's samples, followed
    through both networks; with them they are measured.

    Args:
        model: the network that the atlas is of; see ``model_of``.
        images: of the mission's classes, for the figures only.
        size: (H, W) of the input that the new network takes; by default the original's. The atlas
            does not tell what a smaller one costs, so that the accuracies without ``images`` are
            those at the original's size.

    Raises:
        InputError: the atlas is of another network, or lacks a class; or the network has no such
            size.
    """
    options = options or Options()
    start = time.perf_counter()
    device = pick_device(options.device)
    graph = capture_model(model).to(device)
    channels = analyse(graph)
    atlas.check_network(graph, model.weights_sha256, model.preprocessing)
    at = _captured_at(model, graph, size)
    found, told = found_for(atlas, graph, channels, mission, options, on_progress, at)
    searched = time.perf_counter()
    before, after = told
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
    at: Graph | None = None,
) -> tuple[Found, tuple[Evaluation, Evaluation]]:
    """The network for a mission, and how often both are right on the atlas's samples.

    Args:
        at: the original at the input size that the network is to have, if that is another.
    """
    design = Design.of(graph, channels, atlas, mission, options)
    return _Workshop(atlas, design, on_progress, at).within(options.budget)


def _captured_at(model: Model, graph: Graph, size: Size | None) -> Graph | None:
    """The network at another input size; None where that is its own."""
    own = graph.input.shape[1:]
    if size is None or size == own:
        return None
    try:
        if min(size) < 1 or size[0] > own[0] or size[1] > own[1]:
            raise UnsupportedError("it is no smaller size")
        return capture_model(model, size, like=graph.to("cpu")).to(
            next(iter(graph.params.values())).device
        )
    except UnsupportedError as error:
        raise InputError(
            f"{model.name} takes no images of {size[0]} x {size[1]} pixels ({error}); expected at "
            f"most its own {own[0]} x {own[1]}, and smaller for a network that ends in a global "
            "pool. Leave --input-size out"
        ) from error


@dataclass(frozen=True)
class _Tried:
    """A network at a ratio."""

    found: Found
    evaluations: tuple[Evaluation, Evaluation]


class _Workshop:
    """Makes networks of a mission at ratios, and judges them by the samples."""

    def __init__(
        self, atlas: MissionAtlas, design: Design, on_progress: Progress, at: Graph | None
    ) -> None:
        self.atlas, self.design, self.on_progress, self.at = atlas, design, on_progress, at
        indices = design.mission.indices
        counts = torch.tensor(atlas.counts(indices))
        self.labels_r = torch.arange(len(indices)).repeat_interleave(counts)
        self.tried = 0

    def within(self, budget: Budget) -> tuple[Found, tuple[Evaluation, Evaluation]]:
        """The network that reaches a ratio, or the smallest that is expected to be in a loss."""
        if budget.target_macs or budget.target_params:
            ratio = budget.target_macs or budget.target_params or 1.0
            of: Callable[[Cost], int] = (
                (lambda c: c.macs) if budget.target_macs else (lambda c: c.params)
            )
            tried = self._try(budget, ratio, of)
            reached = of(self.design.uncut) / of(self._cost(tried.found))
            found = replace(
                tried.found,
                met=reached >= ratio,
                stopped_by="the ratio that was to be reached",
            )
            return found, tried.evaluations
        best = self._smallest(budget)
        return best.found, best.evaluations

    def _smallest(self, budget: Budget) -> _Tried:
        ratio, best = _FIRST, self._try(budget, _FIRST)
        step = _STEP if best.found.met else 1 / _STEP
        while ratio * step > _LEAST:
            ratio *= step
            tried = self._try(budget, ratio)
            if step < 1 and tried.found.met:
                return tried
            if step > 1 and not tried.found.met:
                why = f"the next smaller network ({ratio:.2f}x)"
                return replace(best, found=replace(best.found, stopped_by=why))
            best = tried
            if self.tried >= _MOST_TRIALS:
                break
        if not best.found.met:
            raise InputError(
                f"found nothing within {budget.max_loss_pp:g} points by the atlas's samples; allow "
                "more with --max-loss, name a ratio with --target-macs, or distill with images"
            )
        return best

    def _try(
        self, budget: Budget, ratio: float, of: Callable[[Cost], int] = lambda c: c.macs
    ) -> _Tried:
        design, mission = self.design, self.design.mission
        if self.at is not None:  # a part of it is the size's
            ratio = max(1.0, ratio * of(cost(self.at, analyse(self.at))) / of(design.uncut))
        plan = design.plan(ratio, of)
        followed = follow(design.graph, design.channels, plan, self._rows, design.evidence.needs)
        self.tried += 1
        self.on_progress("search", self.tried, self.tried)
        before, after = (scores.cpu() for scores in (followed.before_rk, followed.after_rk))
        verdict = Judge(before, self.labels_r, mission).verdict(after)
        made = followed.graph
        if self.at is not None:
            plan, made = plan_at(plan, self.at), network_at(made, self.at)
        found = Found(plan, {}, {}, verdict, is_within(budget, verdict), made)
        indices = torch.tensor(mission.indices)[self.labels_r]
        told = tuple(
            evaluation(closed_set(scores, mission), mission, scores)
            for scores in (Scores(before, indices), Scores(after, indices))
        )
        return _Tried(found, (told[0], told[1]))

    def _rows(self, record: Record) -> torch.Tensor:
        rows = self.atlas.rows(record, self.design.mission.indices)
        return rows.to(next(iter(self.design.graph.params.values())).device)

    def _cost(self, found: Found) -> Cost:
        return cost(found.graph, analyse(found.graph), found.plan)
