"""Fitting a rule to a run that was made from an atlas, by the atlas's other classes: no images.

What the run's network makes of their images is followed from layer to layer at the atlas's samples
(``missions.following``), and the mean over the samples of an image stands for what its last layer
sees of it.
"""

import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.job.distillation import Distillation
from distillnet.missions.files import MissionAtlas
from distillnet.missions.following import follow_fitted
from distillnet.missions.unknown.features import Measured, feature_of
from distillnet.missions.unknown.fitting import Rejection, fit_unknown
from distillnet.missions.unknown.rule import Rule

__all__ = ["fit_from_atlas"]

_MOST = 16_000  # samples, half of them of the mission


def fit_from_atlas(
    atlas: MissionAtlas,
    done: Distillation,
    *,
    max_false_accept: float | None = None,
    max_false_reject: float | None = None,
) -> tuple[Rule, Rejection]:
    """A rule for what ``retarget`` gave, whose unknown images are of the atlas's other classes.

    Args:
        atlas: the one that it was made from, of the input size that the network has.
        max_false_accept: share; see ``operating_point``.

    Raises:
        InputError: the atlas has no other classes, or too few samples.
        UnsupportedError: no single layer makes the scores.
    """
    mine = done.mission.indices
    others = [index for index in sorted(atlas.samples) if index not in set(mine)]
    if not others:
        raise InputError(
            f"the atlas {atlas.directory} has the mission's classes alone; expected others, for "
            "the rule to tell them from. Collect more classes and merge, or fit the rule on "
            "images with `distillnet unknown RUN --unknown DIR`"
        )
    feature_of(done.compact)
    half = _MOST // 2
    rows = (mine, half), (others, half)
    _, height, width = done.found.graph.input.shape
    original = done.graph  # of the input size that the original has
    if original.input.shape[1:] != (height, width):
        original = capture_model(done.model, (height, width), like=original)
    followed = follow_fitted(
        original,
        analyse(original),
        done.plan,
        done.found.to("cpu").graph,
        lambda record: torch.cat([atlas.rows(record, of, n) for of, n in rows]),
    )
    images = [atlas.images_of_rows(of, n) for of, n in rows]
    labels = torch.cat([
        torch.arange(len(of)).repeat_interleave(torch.tensor(atlas.counts(of, n))) for of, n in rows
    ])  # fmt: skip
    image = torch.cat([images[0], images[1] + int(images[0][-1]) + 1])
    both = Measured(
        _by_image(followed.features_rf, image),
        _by_image(followed.after_rk[:, list(mine)], image),
        labels[torch.searchsorted(image, image.unique())],
    )
    n = int(images[0][-1]) + 1
    return fit_unknown(
        Measured(both.features_nf[:n], both.scores_nk[:n], both.labels_n[:n]),
        Measured(both.features_nf[n:], both.scores_nk[n:], both.labels_n[n:]),
        max_false_accept=max_false_accept,
        max_false_reject=max_false_reject,
        seed=done.options.seed,
    )


def _by_image(values_rf: Tensor, image: Tensor) -> Tensor:
    """The mean (N, F) float64 of rows by image, numbered from 0."""
    count = int(image.max()) + 1
    total = torch.zeros(count, values_rf.shape[1], dtype=torch.float64)
    total.index_add_(0, image, values_rf.double())
    return total / torch.bincount(image, minlength=count)[:, None]
