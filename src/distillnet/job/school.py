"""Trainings of what a search found, and their verdicts on images that were left out.

The original is asked only once: all networks learn from the same answers (see ``refit.tune``). What
tuning changes is judged on two fifths of the images at most, on one where there are 1,000 or more.
"""

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distillnet.graph import Graph
from distillnet.graph.replay import masked_scores
from distillnet.job.pictures import Pictures
from distillnet.refit.tune import Lessons, TuneSettings, prepare, tune
from distillnet.search import Found, Judge, Verdict

__all__ = ["School"]

_FOLDS = TuneSettings.groups  # no training sees a fold that it leaves out, not in a mixture
# Images that are enough to judge by, and folds at most: hundreds more would not tell so small a
# change much better than what is usual does, and each fold is a training.
_CROSSED_IMAGES, _MOST_CROSSED = 200, 2


class School:
    """Tunes at most ``networks`` networks, and judges the results on images that were left out."""

    def __init__(
        self,
        pictures: Pictures,
        settings: TuneSettings,
        on_progress: Callable[[int, int], None],
        networks: int,
    ) -> None:
        self.pictures, self.settings, self.on_progress = pictures, settings, on_progress
        self.own = pictures.sized(pictures.own_size)
        self.n = len(self.own.x_nchw)
        self.lessons: Lessons | None = None  # which take the longest, and are the same for all
        self.said: dict[int, Tensor] = {}  # by the original, of each fold
        labels_n, alike = pictures.labels(), pictures.images.alike
        self.first = 0 if alike else self.own.n_statistics  # that has a say
        self.labels_n = torch.cat([pictures.labels_statistics(), labels_n]) if alike else labels_n
        wanted = math.ceil(_FOLDS * _CROSSED_IMAGES / len(self.labels_n))
        self.crossed = min(wanted, _MOST_CROSSED, len(self.labels_n))
        self.trained, self.trainings = 0, networks * self.crossed + 1  # at most
        self.seconds = 0.0  # that trainings took, and the questions to the original

    def cross_validate(self, point: Found) -> Iterator[tuple[Verdict, Verdict]]:
        """What tuning changes, and what is lost beside the original, on images left out of it.

        Yields:
            After each fifth of the images, by all that were left out so far.
        """
        here = self.pictures.sized(self.pictures.size_of(point))
        held_out, original, before, after = [], [], [], []
        for fold in range(self.crossed):
            # With statistics images that have no say: else it would see the fold in mixtures.
            is_held_out = torch.arange(self.n) % _FOLDS == (self.first + fold) % _FOLDS
            images = torch.arange(self.first + fold, self.n, _FOLDS)
            student = point.compact_without(is_held_out)
            tuned = self._tune(student, here.x_nchw, torch.nonzero(~is_held_out)[:, 0])
            before.append(masked_scores(student, here.x_nchw[images], {}).cpu())
            after.append(masked_scores(tuned, here.x_nchw[images], {}).cpu())
            original.append(self._original_of(fold, images))
            held_out.append(images)
            labels_n = self.labels_n[torch.cat(held_out) - self.first]
            change, alone = (
                self._judge(torch.cat(scores), labels_n).verdict(torch.cat(after))
                for scores in (before, original)
            )
            yield change, alone

    def _judge(self, scores_nk: Tensor, labels_n: Tensor) -> Judge:
        shares = self.pictures.shares()
        return Judge(scores_nk, labels_n, self.pictures.mission, shares=shares)

    def _original_of(self, fold: int, images: Tensor) -> Tensor:
        """What the original says of a fold's images (N, classes), which it is asked only once."""
        if fold not in self.said:
            self.said[fold] = masked_scores(self.own.graph, self.own.x_nchw[images], {}).cpu()
        return self.said[fold]

    def tuned(self, point: Found) -> Graph:
        """The compact network of a point, with all scores, tuned on all images."""
        here = self.pictures.sized(self.pictures.size_of(point))
        self.trained = self.trainings - 1
        return self._tune(point.compact(all_scores=True), here.x_nchw, torch.arange(self.n))

    def finish(self) -> None:
        """Tell that all is done."""
        self.on_progress(1, 1)

    def _tune(self, student: Graph, x_nchw: Tensor, images: Tensor) -> Graph:
        start = time.perf_counter()
        if self.lessons is None:
            own, outputs = self.own, self.pictures.mission.indices
            self.lessons = prepare(own.graph, own.x_nchw, outputs, self.settings)
        past, self.trained = self.trained, self.trained + 1

        def report(done: int, of: int) -> None:
            self.on_progress(past * of + done, self.trainings * of)

        tuned = tune(student, self.lessons, x_nchw, images, report)
        self.seconds += time.perf_counter() - start
        return tuned
