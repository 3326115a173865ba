"""The whole job: statistics, search, surgery, evaluation; from a model to a ``Distillation``."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.atlas import Atlas, collect
from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.errors import InputError
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    graph_scores,
)
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import Album, ImageSet
from distillnet.job.distillation import SURGEON, Distillation, Options, peak_rss_mb
from distillnet.job.layer_report import layer_reports
from distillnet.job.partition import Images
from distillnet.job.pictures import Pictures
from distillnet.job.provenance import provenance_of
from distillnet.job.tuning import search_and_tune
from distillnet.models import Model
from distillnet.search import (
    SCORES,
    Findings,
    Found,
    Search,
    SearchSettings,
    class_importance,
    open_search,
    search_paper,
)
from distillnet.search.evidence import Evidence, measure_evidence
from distillnet.search.store import NOWHERE, Store

__all__ = [
    "Progress",
    "check_atlas",
    "distill",
    "evaluate_found",
    "measure_statistics",
    "pick_device",
]

Progress = Callable[[str, int, int], None]  # stage, done, of


def _silent(stage: str, done: int, total: int) -> None:
    pass


def pick_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; InputError where there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"found the device {name!r}; expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no CUDA device on this machine; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def measure_statistics(
    graph: Graph,
    channels: Channels,
    model: Model,
    images: ImageSet,
    directory: Path,
    options: Options,
    on_progress: Progress = _silent,
    album: Album | None = None,
) -> tuple[Atlas, tuple[str, ...]]:
    """Collect an atlas of ``images`` into ``directory``; also a message per unreadable image."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_progress("collect", done, len(images))

    stream = options.batches(images, model.preprocessing, album=album)
    atlas = collect(
        graph,
        channels,
        stream,
        directory,
        model=model.name,
        weights_sha256=model.weights_sha256,
        on_images=count,
    )
    return atlas, stream.unreadable


def check_atlas(
    atlas: Atlas, graph: Graph, channels: Channels, model: Model, mission: Mission
) -> None:
    """Raise InputError when the atlas is of another network, weights or size, or lacks a class."""
    for what, found, expected in (
        ("weights", atlas.weights_sha256, model.weights_sha256),
        ("input size", atlas.input_size, graph.input.shape[1:]),
        ("sites", atlas.sites, channels.sites),
        ("shapes", atlas.shapes, {site: graph[site].shape for site in channels.sites}),
    ):
        if found != expected:
            raise InputError(
                f"the atlas {atlas.directory} differs from {model.name} here in its {what} "
                f"({str(found)[:60]} instead of {str(expected)[:60]}); collect it again with this "
                "model"
            )
    if missing := [c for c in mission.indices if not atlas.counts.get(c)]:
        raise InputError(
            f"the atlas {atlas.directory} has no statistics of class {missing[0]}; collect it "
            "with images of all classes of the mission"
        )


def distill(
    model: Model,
    mission: Mission,
    images: Images,
    atlas_dir: Path,
    options: Options | None = None,
    *,
    atlas: Atlas | None = None,
    store: Store = NOWHERE,
    whole_front: bool = True,
    on_progress: Progress = _silent,
) -> Distillation:
    """Cut a network down to a mission within a budget; with no training, unless options ask for it.

    Args:
        images: see ``split_images``; the val images are used for the final figures only.
        atlas_dir: an existing folder for the statistics, unless ``atlas`` brings them.
        whole_front: evaluate all networks of the front, and not the chosen one alone.
        store: what an interrupted search kept, and where this one does; see ``job.resuming``.
        on_progress: called as (stage, done, of) with the stages collect, read (the search
            images), search, tune and evaluate.

    Raises:
        InputError: a class is missing, images cannot be read, or the network cannot be followed.
    """
    options = options or Options()
    start = time.perf_counter()
    device = pick_device(options.device)
    graph = capture_model(model)
    channels = analyse(graph)
    if not channels.sites:
        raise InputError(f"{model.name} has no channel that could be removed; see inspect")
    on_device = graph.to(device)
    pictures = Pictures(
        model,
        mission,
        images,
        graph=graph,
        macs=cost(graph, channels).macs,
        device=device,
        keep_input_size=options.keep_input_size,
        seed=options.seed,
        workers=options.workers,
        max_unreadable_percent=options.max_unreadable_percent,
        on_read=lambda done, of: on_progress("read", done, of),
    )
    unreadable: tuple[str, ...] = ()
    if atlas is None:
        atlas, unreadable = measure_statistics(
            on_device,
            channels,
            model,
            images.statistics,
            atlas_dir,
            options,
            on_progress,
            pictures.album,
        )
    check_atlas(atlas, graph, channels, model, mission)
    collected = time.perf_counter()

    known = Findings(on_device, channels, atlas, mission, options.seed)
    found, tuning_s = _search(known, pictures, options, store, on_progress)
    size = pictures.size_of(found)
    here = pictures.sized(size)
    layers = layer_reports(here.graph, here.channels, found, pictures.some(size))
    searched = time.perf_counter()

    points = (found.front if whole_front else ()) or (found,)
    baseline, after, unreadable_val = evaluate_found(
        on_device, points, model, mission, images.val, options, on_progress
    )
    end = time.perf_counter()
    unreadable += pictures.unreadable + unreadable_val

    provenance = provenance_of(images)
    n_images = {
        "statistics": sum(atlas.counts[c] for c in mission.indices),
        "search": pictures.n_search,
        "val": baseline.n,
        "unreadable": len(unreadable),
    }
    seconds = {
        "collect": collected - start,
        "search": searched - collected - tuning_s,
        "tune": tuning_s,
        "total": end - start,
    }

    def distillation(point: Found, distilled: Evaluation) -> Distillation:
        cut = analyse(point.graph)
        return Distillation(
            model=model,
            mission=mission,
            options=options,
            graph=graph,
            channels=cut,
            found=point,
            compact=point.to("cpu").compact(),
            baseline=baseline,
            distilled=distilled,
            cost_before=cost(graph, channels),
            cost_after=cost(point.graph, cut, point.plan),
            layers=layers if point.plan is found.plan else (),
            n_images=n_images,
            unreadable=unreadable,
            seconds=seconds,
            peak_rss_mb=peak_rss_mb(),
            images=images,
            provenance=provenance,
        )

    made = [distillation(*pair) for pair in zip(points, after, strict=True)]
    chosen = next(done for done in made if done.plan is found.plan)
    return replace(chosen, front=tuple(made) if found.front and whole_front else ())


def _search(
    known: Findings, pictures: Pictures, options: Options, store: Store, on_progress: Progress
) -> tuple[Found, float]:
    """What the search found, tuned where that is asked for, and the seconds that tuning took."""
    if options.method == "paper":
        return _search_paper(known, pictures, options, on_progress), 0.0

    search = _open_search(known, pictures, options, store, on_progress)
    if not options.tune:
        return search(options.budget), 0.0
    return search_and_tune(
        search,
        pictures,
        options.budget,
        seed=options.seed,
        on_progress=lambda done, of: on_progress("tune", done, of),
    )


def _search_paper(
    known: Findings, pictures: Pictures, options: Options, on_progress: Progress
) -> Found:
    own = pictures.sized(pictures.own_size)
    graph, channels = own.graph, own.channels
    if options.score_name == "sensitivity":
        evidence = measure_evidence(graph, channels, known.mission, own.x_statistics, options.seed)
        known = replace(known, gradients=evidence.gradients)
    return search_paper(
        graph,
        channels,
        SCORES[options.score_name](known),
        known.mission,
        own.x_search,
        pictures.labels(),
        options.budget,
        **options.for_paper,
        on_progress=lambda done, total: on_progress("search", done, total),
    )


def _open_search(
    known: Findings, pictures: Pictures, options: Options, store: Store, on_progress: Progress
) -> Search:
    def importance(evidence: Evidence) -> NDArray[np.float64]:
        score = SCORES[options.score_name](replace(known, gradients=evidence.gradients))
        return class_importance(known.channels, score)

    settings = SearchSettings(
        importance=None if options.score_name == SURGEON else importance,
        split=options.split,
        fit_labels=options.labels,
        more_views=options.views,
        round_to=options.multiple_for(pictures.widths()),
        param_weight=options.param_weight,
        element=options.element_cost,
        seen=options.seen,
        seed=options.seed,
    )
    return open_search(
        pictures.sized,
        pictures.sizes(),
        known.mission,
        pictures.labels(),
        settings,
        labels_statistics_n=pictures.labels_statistics(),
        alike=pictures.images.alike,
        shares=pictures.shares(),
        # Where parameters count, the image stays as large as it is.
        graphs=None if options.budget.target_params else pictures.graphs,
        store=store,
        on_progress=lambda done, total: on_progress("search", done, total),
    )


def evaluate_found(
    graph: Graph,
    points: Sequence[Found],
    model: Model,
    mission: Mission,
    images: ImageSet,
    options: Options,
    on_progress: Progress,
) -> tuple[Evaluation, list[Evaluation], tuple[str, ...]]:
    """Baseline and found networks on the same images; also which could not be read.

    A found one is evaluated compacted, with all its scores, so that the open set is measured on
    what is left of the network; the closed set reads the mission's scores of the same run.
    """
    networks = [graph, *(point.compact(all_scores=True) for point in points)]
    sizes = [(height, width) for height, width in (n.input.shape[1:] for n in networks)]
    album = Album(model.preprocessing, sizes)
    results: list[Evaluation] = []
    unreadable: tuple[str, ...] = ()
    for i, (network, size) in enumerate(zip(networks, sizes, strict=True)):

        def report(n: int, offset: int = i * len(images)) -> None:
            on_progress("evaluate", offset + n, len(networks) * len(images))

        how = model.preprocessing.with_input_size(size)
        stream = options.batches(images, how, report, album)
        scores: Scores = graph_scores(network, stream)
        unreadable = stream.unreadable
        results.append(evaluation(closed_set(scores, mission), mission, scores))
    return results[0], results[1:], unreadable
