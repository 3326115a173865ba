"""The whole job: statistics, search, surgery, evaluation; from a model to a ``Distillation``."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from distillnet.atlas import Atlas, collect
from distillnet.capture import capture
from distillnet.channels import Channels, analyse
from distillnet.classes import Mission
from distillnet.cost import Cost, cost, inception_macs
from distillnet.errors import InputError
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    graph_scores,
    loss_interval_pp,
    loss_pp,
    worst_class_loss_pp,
)
from distillnet.graph import Graph
from distillnet.images import ImageSet, limit, load_all, load_batches
from distillnet.layer_report import LayerReport, layer_reports
from distillnet.models import Model
from distillnet.partition import Images
from distillnet.plan import Plan
from distillnet.search import SCORES, Budget, Found, search_paper
from distillnet.surgery import compact

__all__ = [
    "Distillation",
    "Options",
    "Progress",
    "check_atlas",
    "distill",
    "measure_statistics",
    "pick_device",
]

Progress = Callable[[str, int, int], None]  # stage, done, of

# All search images stay in memory: 3,300 of 224 x 224. More would be sure of the loss to well under
# a point, which no budget asks for.
_SEARCH_BYTES = 2 * 10**9
_DENSITY_IMAGES = 50  # search images that the dormant densities of the report are taken from


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Options:
    """How to distill; all that changes the result beside the model and the images."""

    budget: Budget = field(default_factory=Budget)
    method: str = "paper"
    score: str = "heat"
    complete_only: bool = False
    seed: int = 0
    batch_size: int = 32
    workers: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Distillation:
    """A distilled network and all that is known of it."""

    model: Model
    mission: Mission
    options: Options
    graph: Graph
    channels: Channels
    found: Found
    compact: Graph
    baseline: Evaluation
    distilled: Evaluation
    cost_before: Cost
    cost_after: Cost
    layers: tuple[LayerReport, ...]
    n_images: Mapping[str, int]
    unreadable: tuple[str, ...]  # a message for each image that was left out, path first
    seconds: Mapping[str, float]
    peak_rss_mb: float | None

    @property
    def plan(self) -> Plan:
        return self.found.plan

    @property
    def mac_ratio(self) -> float:
        """Original over distilled MACs, complete removal only: what every runtime realises."""
        return self.cost_before.macs / self.cost_after.macs

    @property
    def mac_ratio_with_partial(self) -> float:
        return self.cost_before.macs / self.cost_after.macs_with_partial

    @property
    def inception_mac_ratio(self) -> float | None:
        """The paper's "speedup": MACs of GoogLeNet's inception modules, partial removal counted."""
        before, after = inception_macs(self.cost_before), inception_macs(self.cost_after)
        return before / after if before and after else None

    @property
    def param_ratio(self) -> float:
        return self.cost_before.params / self.cost_after.params

    @property
    def loss_pp(self) -> float:
        return loss_pp(self.baseline, self.distilled)

    @property
    def worst_class_loss_pp(self) -> float:
        return worst_class_loss_pp(self.baseline, self.distilled)

    @property
    def loss_ci95_pp(self) -> tuple[float, float]:
        return loss_interval_pp(self.baseline, self.distilled)


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
) -> tuple[Atlas, tuple[str, ...]]:
    """Collect an atlas of ``images`` into ``directory``; also a message per unreadable image."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_progress("collect", done, len(images))

    stream = load_batches(
        images, model.preprocessing, batch_size=options.batch_size, workers=options.workers
    )
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


def check_atlas(atlas: Atlas, graph: Graph, channels: Channels, model: Model) -> None:
    """Raise InputError when the atlas is of another network, other weights or another size."""
    for what, found, expected in (
        ("weights", atlas.weights_sha256, model.weights_sha256),
        ("input size", atlas.input_size, graph.input.shape[1:]),
        ("sites", atlas.sites, channels.sites),
    ):
        if found != expected:
            raise InputError(
                f"the atlas {atlas.directory} is of other {what} than {model.name} here "
                f"({str(found)[:60]} instead of {str(expected)[:60]}); collect it again with this "
                "model"
            )


def distill(
    model: Model,
    mission: Mission,
    images: Images,
    atlas_dir: Path,
    options: Options | None = None,
    *,
    atlas: Atlas | None = None,
    on_progress: Progress = _silent,
) -> Distillation:
    """Cut a network down to a mission within a budget, with no training.

    Args:
        images: see ``split_images``; the val images are used for the final figures only.
        atlas_dir: an existing folder for the statistics, unless ``atlas`` brings them.
        on_progress: called as (stage, done, of) with the stages collect, read (the search
            images), search and evaluate.

    Raises:
        InputError: a class is missing, images cannot be read, or the network cannot be followed.
    """
    options = options or Options()
    if options.method != "paper":
        raise InputError(f"there is no method {options.method!r}; expected paper")
    start = time.perf_counter()
    device = pick_device(options.device)
    graph = capture(
        model.module, model.preprocessing.input_size, channels=len(model.preprocessing.mean)
    )
    channels = analyse(graph)
    if not channels.sites:
        raise InputError(f"{model.name} has no channel that could be removed; see inspect")
    on_device = graph.to(device)
    unreadable: tuple[str, ...] = ()
    if atlas is None:
        atlas, unreadable = measure_statistics(
            on_device, channels, model, images.statistics, atlas_dir, options, on_progress
        )
    else:
        check_atlas(atlas, graph, channels, model)
    if missing := [c for c in mission.indices if not atlas.counts.get(c)]:
        raise InputError(
            f"the atlas {atlas.directory} has no statistics of class {missing[0]}; collect it "
            "with images of all classes of the mission"
        )
    collected = time.perf_counter()

    searched_on = _fitting(images.search, model, options.seed)
    loaded = load_all(
        searched_on,
        model.preprocessing,
        workers=options.workers,
        on_image=lambda n: on_progress("read", n, len(searched_on)),
    )
    unreadable += loaded.unreadable
    positions = torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])
    score = SCORES[options.score](graph, channels, atlas, mission, options.seed)
    found = search_paper(
        on_device,
        channels,
        score,
        mission,
        loaded.x_nchw.to(device),
        positions,
        options.budget,
        complete_only_plan=options.complete_only,
        on_progress=lambda done, total: on_progress("search", done, total),
    )
    some = loaded.x_nchw[:: max(1, len(loaded.x_nchw) // _DENSITY_IMAGES)]
    layers = layer_reports(on_device, channels, found, some.to(device))
    searched = time.perf_counter()

    baseline, distilled, unreadable_val = _evaluate(
        on_device, channels, found.plan, model, mission, images.val, options, on_progress
    )
    end = time.perf_counter()
    return Distillation(
        model=model,
        mission=mission,
        options=options,
        graph=graph,
        channels=channels,
        found=found,
        compact=compact(graph, channels, found.plan),
        baseline=baseline,
        distilled=distilled,
        cost_before=cost(graph, channels),
        cost_after=cost(graph, channels, found.plan),
        layers=layers,
        n_images={
            "statistics": sum(atlas.counts[c] for c in mission.indices),
            "search": len(loaded.refs),
            "val": baseline.n,
            "unreadable": len(unreadable) + len(unreadable_val),
        },
        unreadable=unreadable + unreadable_val,
        seconds={
            "collect": collected - start,
            "search": searched - collected,
            "total": end - start,
        },
        peak_rss_mb=_peak_rss_mb(),
    )


def _fitting(images: ImageSet, model: Model, seed: int) -> ImageSet:
    """As many images of each class as ``_SEARCH_BYTES`` hold as tensors."""
    how = model.preprocessing
    per_image = 4 * len(how.mean) * how.input_size[0] * how.input_size[1]
    return limit(images, max(1, _SEARCH_BYTES // (per_image * len(images.counts()))), seed)


def _peak_rss_mb() -> float | None:
    """The most memory this process has had resident, in MB; None where the system does not tell."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _evaluate(
    graph: Graph,
    channels: Channels,
    plan: Plan,
    model: Model,
    mission: Mission,
    images: ImageSet,
    options: Options,
    on_progress: Progress,
) -> tuple[Evaluation, Evaluation, tuple[str, ...]]:
    """Baseline and distilled network on the same images; also which could not be read.

    The distilled one is evaluated compacted, with all its scores, so that the open set is measured
    on what is left of the network; the closed set reads the mission's scores of the same run.
    """
    whole = replace(plan, outputs=None)
    results: list[Evaluation] = []
    unreadable: tuple[str, ...] = ()
    for i, network in enumerate((graph, compact(graph, channels, whole))):

        def report(n: int, offset: int = i * len(images)) -> None:
            on_progress("evaluate", offset + n, 2 * len(images))

        stream = load_batches(
            images,
            model.preprocessing,
            batch_size=options.batch_size,
            workers=options.workers,
            on_image=report,
        )
        scores: Scores = graph_scores(network, stream)
        unreadable = stream.unreadable
        results.append(evaluation(closed_set(scores, mission), mission, scores))
    return results[0], results[1], unreadable
