"""A run's rule for unknown images in each runtime, on images of its mission and of other things."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distillnet.deploy.c_folder import open_c
from distillnet.deploy.exporting import onnx_scores
from distillnet.deploy.networks import distilled_network, original_model
from distillnet.deploy.onnx_file import class_names, open_onnx
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, graph_scores
from distillnet.graph.capture import capture_model
from distillnet.images import Batch
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.evaluating import evaluate_scores
from distillnet.job.runs import Run
from distillnet.missions.unknown import Rejection, compared, judged
from distillnet.missions.unknown.rule import unknown_name

__all__ = ["Source", "evaluate_with_unknown", "open_scores", "original_areas"]

Score = Callable[[Tensor], Tensor]
_REMEDY = "export it again with --with-unknown"


@dataclass(frozen=True)
class Source:
    """Scores of normalised images (N, C, H, W) -> (N, K + 1), and where they come from."""

    path: Path
    scores: Score


def open_scores(run: Run, runtime: str, file: Path | None, work: Path, trust: bool) -> Source:
    """What computes a run's scores, that of the unknown behind them, in a runtime.

    Args:
        file: what ``export --with-unknown`` wrote; None takes its usual place in the run.
        work: an existing folder for a compiled library.
        trust: the user's word that a folder of C may run.

    Raises:
        InputError: the run has no rule, or what was exported has no score of the unknown.
    """
    wanted = (*run.mission.names, unknown_name(run.mission.names))
    if runtime == "onnx":
        opened = open_onnx(file or run.directory / "model.onnx")
        _check(opened.path, class_names(opened), wanted)
        onnx = onnx_scores(opened, run.preprocessing)
        return Source(opened.path, lambda x: torch.from_numpy(onnx(x.numpy())))
    if runtime == "c":
        folder = file or run.directory / "c"
        if not trust:
            raise InputError(
                f"{folder} is code in C; if you made it, or trust who did, pass --trust"
            )
        native, missions = open_c(folder, work)
        fitting = [name for name, classes in missions.items() if tuple(classes) == wanted]
        if not fitting:
            _check(folder, tuple(next(iter(missions.values()))), wanted)
        bound = native.mission(fitting[0])
        return Source(folder, lambda x: torch.from_numpy(native.scores(bound, x.numpy())))
    return Source(run.directory / "model.pt2", distilled_network(run, unknown=True).module)


def _check(path: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if found != wanted:
        raise InputError(
            f"{path} scores {list(found)}; expected the run's classes and the unknown, "
            f"{list(wanted)}. Fit a rule with `distillnet unknown RUN`, then {_REMEDY}"
        )


def evaluate_with_unknown(
    run: Run,
    source: Source,
    known: Iterable[Batch],
    strangers: Iterable[Batch],
    names: Sequence[str],
) -> tuple[Evaluation, Rejection]:
    """Closed-set accuracy on the mission's images, and how the rule does on these and others.

    Args:
        known: of the mission's classes.
        strangers: of other things, labels are positions in ``names``.
    """
    k = len(run.mission)
    rows: list[Tensor] = []

    def scores(x_nchw: Tensor) -> Tensor:
        y = source.scores(x_nchw)
        rows.append(y)
        return y[:, :k]

    result = evaluate_scores(run, source.path, scores, known)
    others, labels = [], []
    with torch.inference_mode():
        for batch in strangers:
            others.append(source.scores(batch.x_nchw))
            labels.append(batch.labels_n)
    return result, judged(torch.cat(rows), torch.cat(others), torch.cat(labels), names)


def original_areas(
    run: Run,
    named: str | None,
    images: Callable[[Preprocessing], tuple[Iterable[Batch], Iterable[Batch]]],
) -> dict[str, float]:
    """Area under the ROC curve of the original network's simple scores (``simple_scores``).

    Args:
        named: the original as the user names it now, see ``original_model``.
        images: of the mission and of other things, fed as the original is.

    Raises:
        InputError: the original's weights are not at hand.
    """
    model = original_model(run, named=named)
    graph = capture_model(model)
    known, unknown = (graph_scores(graph, part).scores_nk for part in images(model.preprocessing))
    return compared(known, unknown, run.mission.indices)
