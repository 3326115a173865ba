"""How a run's network does on images, in whatever form a file or folder holds it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from distillnet.errors import InputError, expect
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.images import Batch, Folders, ImageSet, load_batches, open_images
from distillnet.job.provenance import held_out
from distillnet.job.runs import Run, open_run
from distillnet.models.programs import load_program

__all__ = ["evaluate_run", "evaluate_scores", "network_scores"]


def evaluate_run(
    opened: Run | str | Path,
    images: Iterable[Batch] | ImageSet | Folders | str | Path | None = None,
) -> Evaluation:
    """The compact network's closed-set accuracy on images of the mission's classes.

    Its head has only the mission's scores, so there is no open set to measure.

    Args:
        opened: a run, or its folder.
        images: a folder, of which val/ or test/ is taken where there is one; images as opened, or
            batches of them; by default those that were held out for the run's own figures.
    """
    if not isinstance(opened, Run):
        opened = open_run(opened)
    batches = _batches(opened, images)
    return evaluate_scores(opened, opened.directory / "model.pt2", network_scores(opened), batches)


def network_scores(opened: Run) -> Callable[[Tensor], Tensor]:
    """The compact network: normalised images (N, C, H, W) -> the mission's scores (N, K).

    Raises:
        InputError: ``model.pt2`` is damaged; calling it, that it fails on such images.
    """
    path = opened.directory / "model.pt2"
    module = load_program(path).module

    def scores(x_nchw: Tensor) -> Tensor:
        try:
            y: Tensor = module(x_nchw)
        except (RuntimeError, AssertionError) as error:  # its guards are assertions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path} fails on images of shape {tuple(x_nchw.shape)} ({reason[:200]}); expected "
                "the run's own network, distill again"
            ) from error
        return y

    return scores


def _batches(
    opened: Run, images: Iterable[Batch] | ImageSet | Folders | str | Path | None
) -> Iterable[Batch]:
    if images is None:
        source = opened.sources.get("val") or opened.sources.get("data")
        images, _ = held_out(opened.directory, source, opened.classes, opened.mission)
    if isinstance(images, str | Path):
        images = open_images(images, opened.classes, opened.mission.indices)
    if isinstance(images, Folders):
        images = images.val or images.train
    if isinstance(images, ImageSet):
        return load_batches(images.select(opened.mission.indices), opened.preprocessing)
    expect(images, Iterable, "images", "a folder's path, images as opened, or batches of them")
    return images


def evaluate_scores(
    opened: Run, path: Path, scores: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> Evaluation:
    """Closed-set accuracy of a run's network in whatever form ``path`` holds it.

    Args:
        scores: normalised images (N, C, H, W) -> the mission's scores (N, K).

    Raises:
        InputError: the scores are of another shape, NaN or infinite.
    """
    position = {index: i for i, index in enumerate(opened.mission.indices)}
    parts, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            y, shape = scores(batch.x_nchw), (len(batch.x_nchw), len(position))
            if y.shape != shape or not bool(torch.isfinite(y).all()):
                found = f"the shape {tuple(y.shape)}" if y.shape != shape else "NaN or infinity"
                raise InputError(
                    f"{path} gives {found} as scores; expected finite ones of shape {shape}. "
                    "Distill or export again"
                )
            parts.append(y)
            strange = set(map(int, batch.labels_n)) - set(position)
            if strange:
                raise InputError(
                    f"found images of class {min(strange)}; expected classes of the mission, "
                    f"{', '.join(map(str, position))}"
                )
            labels += [position[int(label)] for label in batch.labels_n]
    if not parts:
        raise InputError("there are no images to evaluate on; expected one at least")
    return evaluation(Scores(torch.cat(parts), torch.tensor(labels)), opened.mission)
