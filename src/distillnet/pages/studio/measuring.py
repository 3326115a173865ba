"""How often the networks of missions are right on images that their atlas was not made of."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from distillnet.classes import Mission
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    graph_scores,
    loss_interval_pp,
    loss_pp,
)
from distillnet.graph import Graph
from distillnet.images import ImageSet, OpenFiles, image_digest
from distillnet.job.options import Options
from distillnet.missions.files import MissionAtlas
from distillnet.models import Model

__all__ = ["Gauge", "accuracies"]

_IMAGES = 50  # of each class, so that a mission is measured while one looks on

Progress = Callable[[str, int, int], None]


class Gauge:
    """Images at hand, and what the original says of them, which is asked once.

    Args:
        graph: the original.
        images: of any classes; those that the atlas was made of are left out.
    """

    def __init__(
        self, atlas: MissionAtlas, model: Model, graph: Graph, images: ImageSet, options: Options
    ) -> None:
        self.atlas, self.model, self.graph, self.options = atlas, model, graph, options
        self._images = images
        self._unseen: dict[int, ImageSet] = {}
        self._before: dict[int, Scores] = {}

    def unseen(self, mission: Mission) -> ImageSet | None:
        """Images of a mission; None where one of its classes has none."""
        parts = [self._unseen_of(index) for index in mission.indices]
        if not all(parts):
            return None
        return ImageSet(tuple(ref for part in parts for ref in part.refs), self._images.max_pixels)

    def _unseen_of(self, index: int) -> ImageSet:
        if index not in self._unseen:
            most, kept, files = self._images.max_pixels, [], OpenFiles()
            there = bool(self._images.counts().get(index))
            known = self.atlas.images(index) if there else frozenset()
            try:
                for ref in self._images.select([index]).refs if there else ():
                    digest = image_digest(ref, files, most)
                    if digest is not None and digest not in known:
                        kept.append(ref)
                    if len(kept) == _IMAGES:
                        break
            finally:
                files.close()
            self._unseen[index] = ImageSet(tuple(kept), most)
        return self._unseen[index]

    def measured(
        self, network: Graph, mission: Mission, on_progress: Progress
    ) -> dict[str, Any] | None:
        """Accuracies of both networks on images, the loss and its interval; None without images.

        Args:
            network: with the scores of all classes that the original knows.
        """
        if self.unseen(mission) is None:
            return None
        parts = [self._unseen[index] for index in mission.indices]
        new = [index for index in mission.indices if index not in self._before]
        total = sum(len(part) for part in (*parts, *(self._unseen[index] for index in new)))
        done = 0

        def scores(graph: Graph, part: ImageSet) -> Scores:
            nonlocal done
            begun = done
            stream = self.options.batches(
                part, self.model.preprocessing, lambda n: on_progress("evaluate", begun + n, total)
            )
            found = graph_scores(graph, stream)
            done += len(part)
            return found

        for index in new:
            self._before[index] = scores(self.graph, self._unseen[index])
        before = _evaluated([self._before[index] for index in mission.indices], mission)
        after = _evaluated([scores(network, part) for part in parts], mission)
        low, high = loss_interval_pp(before, after)
        return {
            **accuracies(before, after),
            "loss_pp": loss_pp(before, after),
            "low_pp": low,
            "high_pp": high,
        }


def _evaluated(parts: Sequence[Scores], mission: Mission) -> Evaluation:
    scores = Scores(
        torch.cat([part.scores_nk for part in parts]), torch.cat([part.labels_n for part in parts])
    )
    return evaluation(closed_set(scores, mission), mission, scores)


def accuracies(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """How often both are right, and by class, as the page is told of it."""
    return {
        "n": after.n,
        "accuracy_before": before.accuracy,
        "accuracy": after.accuracy,
        "per_class": [
            {"name": name, "before": before.per_class[name], "after": share}
            for name, share in after.per_class.items()
        ],
    }
