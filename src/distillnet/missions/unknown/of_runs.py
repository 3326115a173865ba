"""Fitting a rule to a run: which images, what its network makes of them."""

from collections.abc import Iterable
from pathlib import Path

import torch

from distillnet.errors import ImageError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.images import MAX_PIXELS, Batch, ImageSet, open_images
from distillnet.job.provenance import read_provenance
from distillnet.job.runs import Run
from distillnet.missions.unknown.features import Measured, measure
from distillnet.missions.unknown.fitting import Rejection, fit_unknown
from distillnet.missions.unknown.pictures import without
from distillnet.missions.unknown.placing import placed
from distillnet.missions.unknown.rule import Rule
from distillnet.models.programs import load_program

__all__ = ["fit_run", "fitting_images", "network_of"]


def network_of(run: Run) -> Graph:
    """A run's compact network as a graph."""
    module = load_program(run.directory / "model.pt2").module
    how = run.preprocessing
    return capture(module, how.input_size, channels=len(how.mean))


def fitting_images(run: Run, data: Path | None = None, *, max_pixels: int = MAX_PIXELS) -> ImageSet:
    """The mission's images to fit a rule on: none of those that the run's figures are of.

    Args:
        data: a folder; by default that which the run was made of.

    Raises:
        ImageError: the folder is not where it was, or holds none but those.
    """
    source = data or run.sources.get("data")
    if source is None or not Path(source).is_dir():
        raise ImageError(
            f"the images that {run.directory} was made of are not where they were; pass images of "
            "its classes with --data"
        )
    images = open_images(source, run.classes, run.mission.indices, max_pixels=max_pixels).train
    known = read_provenance(run.directory)
    if known is None:
        return images
    kept = without(images, known.val)
    if not kept:
        raise ImageError(
            f"{source} holds only the images that the figures of {run.directory} are of; pass "
            "others with --data"
        )
    return kept.select(run.mission.indices)


def fit_run(
    run: Run,
    known: Iterable[Batch],
    strangers: Iterable[Batch] | None,
    *,
    max_false_accept: float | None = None,
    max_false_reject: float | None = None,
    rule: Rule | None = None,
) -> tuple[Rule, Rejection]:
    """A rule for a run's network; see ``fit_unknown``.

    Args:
        known: images of the mission's classes.
        strangers: of anything else, labels tell kinds.
        rule: one that is kept but for its threshold; see ``placed``.
    """
    graph = network_of(run)
    position = {index: i for i, index in enumerate(run.mission.indices)}
    of_mission = measure(graph, known)
    labels = torch.tensor([position[int(label)] for label in of_mission.labels_n])
    of_mission = Measured(of_mission.features_nf, of_mission.scores_nk, labels)
    others = None if strangers is None else measure(graph, strangers)
    if rule is not None:
        return placed(
            rule,
            of_mission,
            others,
            max_false_accept=max_false_accept,
            max_false_reject=max_false_reject,
        )
    return fit_unknown(
        of_mission,
        others,
        max_false_accept=max_false_accept,
        max_false_reject=max_false_reject,
        seed=run.seed,
    )
