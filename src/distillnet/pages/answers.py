"""What the original and the distilled network say of images, one by one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.evaluate import Evaluation, Scores, closed_set, evaluation, graph_scores
from distillnet.images import Batch, ImageRef, ImageSet, load_batches
from distillnet.job.evaluating import evaluate_scores, network_scores
from distillnet.pages.subject import Original, Subject

__all__ = ["Answers", "ask", "confusion", "label_of"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answers:
    """Of one network and some images of the mission's classes.

    Attributes:
        refs: the images that could be read.
        labels_n: their classes, and ``answers_n`` what the network says, as positions in the
            mission.
        sure_n: the probability that the network gives to its answer, among the mission's classes.
    """

    refs: tuple[ImageRef, ...]
    labels_n: Tensor
    answers_n: Tensor
    sure_n: Tensor
    result: Evaluation

    @property
    def right_n(self) -> Tensor:
        return self.labels_n == self.answers_n


def ask(
    subject: Subject,
    images: ImageSet,
    on_progress: Progress = lambda stage, done, of: None,
) -> tuple[Answers | None, Answers]:
    """What the original, where it is at hand with its own weights, and the distilled one say."""
    original, run = subject.original, subject.run
    own = original is not None and original.own_weights
    total = (1 + own) * len(images)
    before = None
    if original is not None and own:
        how = original.model.preprocessing.with_input_size(_side(original))
        stream = load_batches(images, how, on_image=lambda n: on_progress("evaluate", n, total))
        refs: list[ImageRef] = []
        scores = graph_scores(original.graph, _noted(stream, refs))
        closed = closed_set(scores, run.mission)
        before = _answers(refs, closed, evaluation(closed, run.mission, scores))

    stream = load_batches(
        images,
        run.preprocessing,
        on_image=lambda n: on_progress("evaluate", total - len(images) + n, total),
    )
    refs, parts, network = [], [], network_scores(run)

    def noted_scores(x_nchw: Tensor) -> Tensor:
        parts.append(network(x_nchw))
        return parts[-1]

    path = run.directory / "model.pt2"
    result = evaluate_scores(run, path, noted_scores, _noted(stream, refs))
    position = {index: i for i, index in enumerate(run.mission.indices)}
    labels = torch.tensor([position[ref.label] for ref in refs])
    return before, _answers(refs, Scores(torch.cat(parts), labels), result)


def _noted(batches: Iterable[Batch], refs: list[ImageRef]) -> Iterator[Batch]:
    """The same batches, and which images they are of."""
    for batch in batches:
        refs.extend(batch.refs)
        yield batch


def _side(original: Original) -> tuple[int, int]:
    height, width = original.graph.input.shape[1:]
    return height, width


def _answers(refs: list[ImageRef], closed: Scores, result: Evaluation) -> Answers:
    sure, answers = closed.scores_nk.double().softmax(1).max(1)
    return Answers(tuple(refs), closed.labels_n, answers, sure, result)


def confusion(answers: Answers, n_classes: int) -> Tensor:
    """How many images of each class (row) were taken for which (column): int64 (K, K).

    >>> from distillnet.evaluate import Evaluation
    >>> said = Answers((), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), torch.ones(3),
    ...                Evaluation(1.0, None, {}, ()))
    >>> confusion(said, 2).tolist()
    [[1, 1], [0, 1]]
    """
    at = answers.labels_n * n_classes + answers.answers_n
    return torch.bincount(at, minlength=n_classes**2).reshape(n_classes, n_classes)


def label_of(ref: ImageRef) -> str:
    """An image's folder and name, without the folders of the machine it lies on."""
    if ref.member is not None:
        parts = ref.member.split("/")
    elif ref.index is not None:
        return f"{ref.path.name}, image {ref.index}"
    else:
        parts = list(ref.path.parts)
    return "/".join(parts[-2:]).encode("utf-8", "backslashreplace").decode()
