"""One pass over images, class by class: an atlas of sums with noise, and of nothing else.

No sample is kept, no digest of an image, no number of images: only what the Gaussian mechanism
gave. An image is in one class, so one class's sums have noise enough for epsilon, and so has the
atlas of all. Which classes there are is taken to be known: it is told by folders, not by images.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillnet.atlas import Atlas, write_index
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.images import ImageSet
from distillnet.job.distill import Progress, pick_device
from distillnet.job.options import Options
from distillnet.missions.noise.gaussian import (
    Below,
    check_epsilon,
    discrete_gaussian,
    rho_for,
    variance_for,
)
from distillnet.missions.noise.notes import NOISE, Noise, write_heat, write_noise
from distillnet.missions.noise.vectors import UNIT, Layout, SumVectors
from distillnet.models import Model

__all__ = ["NoisyCollection", "collect_noisy", "noisy_atlas"]

Sums = Mapping[int, NDArray[np.int64]]  # by class, of vectors


@dataclass(frozen=True)
class NoisyCollection:
    """What a pass gave; ``left_out`` and counts are told by the noisy sums, too."""

    atlas: Atlas
    unreadable: tuple[str, ...]
    left_out: Mapping[str, int]


def collect_noisy(
    model: Model,
    images: ImageSet,
    directory: Path,
    epsilon: float,
    delta: float,
    options: Options,
    *,
    min_images: int = 1,
    on_progress: Progress = lambda stage, done, of: None,
) -> NoisyCollection:
    """Write an atlas of noisy sums into an empty folder, (epsilon, delta)-private for each image.

    That is: whatever anybody does with the atlas becomes at most exp(epsilon) times as likely, and
    delta more, by any one image's being there or not.

    Raises:
        InputError: no class has so many images, by the noisy count.
    """
    check_epsilon(epsilon, delta)
    graph = capture_model(model).to(pick_device(options.device))
    channels = analyse(graph)
    vectors, sums, done = SumVectors(graph, channels), {}, 0
    unreadable: list[str] = []
    alone = replace(options, batch_size=1)  # so that no image's numbers depend on another's
    for label in sorted(images.counts()):
        mine = images.select([label])
        total = np.zeros(vectors.layout.length, dtype=np.int64)
        stream = alone.batches(mine, model.preprocessing)
        for batch in stream:
            total += vectors.of(batch.x_nchw)
            done += 1
            on_progress("collect", done, len(images))
        unreadable += stream.unreadable
        sums[label] = total
    atlas = noisy_atlas(model, graph, channels, sums, directory, epsilon, delta, min_images)
    names = model.classes.names
    few = {names[label]: 0 for label in sums if label not in atlas.counts}
    return NoisyCollection(atlas, tuple(unreadable), few)


def noisy_atlas(
    model: Model,
    graph: Graph,
    channels: Channels,
    sums: Sums,
    directory: Path,
    epsilon: float,
    delta: float,
    min_images: int = 1,
    below: Below = secrets.randbelow,
) -> Atlas:
    """Add noise to sums of vectors by class, and write the atlas; see ``collect_noisy``.

    Args:
        below: where chance comes from.
    """
    layout, rho = Layout.of(graph, channels), rho_for(epsilon, delta)
    variance = variance_for(layout.squared_sensitivity, rho)
    counts: dict[int, int] = {}
    for label, total in sums.items():
        noise = [discrete_gaussian(variance, below) for _ in range(len(total))]
        heard = total + np.array(noise, dtype=np.int64)
        if heard[-1] < min_images * UNIT - UNIT // 2:
            continue
        count, heat = layout.heat(heard)
        write_heat(heat, {site: graph[site].shape for site in channels.sites}, label, directory)
        counts[label] = count
    if not counts:
        raise InputError(
            f"no class has {min_images} images or more by its count, which has noise in it; add "
            "images, or ask for less with --min-images or a larger --noise"
        )
    note = Noise(epsilon, delta, rho, 1, variance**0.5 / UNIT)
    write_noise(note, directory)
    height, width = graph.input.shape[1:]
    atlas = Atlas(
        directory,
        model.name,
        model.weights_sha256,
        (height, width),
        tuple(channels.sites),
        counts,
        shapes={site: graph[site].shape for site in channels.sites},
    )
    write_index(atlas, [NOISE])
    return atlas
