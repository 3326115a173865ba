"""What an image adds to the sums of its class: whole numbers, and never more than so much of them.

Of each site that a mission can be cut at, the mean of every channel over the map, the site's
channels together brought to one length; and 1, which counts the image. Lengths are brought to
one, not only clipped at one: then nothing has to be known of the images to choose where to clip.
What is lost is how strongly an image moves a site as a whole; which of its channels it moves, for
which a mission is cut, stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.channels import Channels

__all__ = ["UNIT", "Layout", "SumVectors"]

UNIT = 2**16  # of a site's length, and what an image counts


@dataclass(frozen=True)
class Layout:
    """Which numbers a vector holds: the channels of each site, one after the other, then the count.

    Attributes:
        widths: channels by site.
    """

    widths: Mapping[str, int]

    @classmethod
    def of(cls, graph: Graph, channels: Channels) -> "Layout":
        """Of the sites that have channels which can go."""
        free = {
            site: graph[site].shape[0]
            for site in channels.sites
            if any(c not in channels.pinned for c in channels.of[site].tolist())
        }
        return cls(free)

    @property
    def length(self) -> int:
        """How many numbers."""
        return sum(self.widths.values()) + 1

    @property
    def squared_sensitivity(self) -> int:
        """The squared Euclidean length that no vector exceeds: UNIT^2 a site and for the count.

        An image that comes or goes adds its vector to the sum or takes it away, and changes no
        other image's: networks answer each image by itself, and images are run one at a time. So
        the sums of two sets of images that differ by one image differ by its vector. ``integers``
        cuts towards zero, so no number grows by rounding: a site's part is no longer than UNIT.
        """
        return (len(self.widths) + 1) * UNIT**2

    def integers(self, means: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int64]:
        """The vector of an image, from the means of its channels by site.

        What is not finite counts as zero: a network that answers NaN tells nothing.
        """
        parts = []
        for site in self.widths:
            values = np.nan_to_num(means[site].astype(np.float64), posinf=0.0, neginf=0.0)
            largest = np.abs(values).max(initial=0.0)
            if largest > 0:
                values = values / largest  # its square would not fit where values are huge or tiny
                values = values / np.sqrt(np.square(values).sum())
            cut = np.trunc(values * (UNIT - 1)).astype(np.int64)  # UNIT - 1: the root is rounded
            parts.append(cut)
        return np.concatenate([*parts, [UNIT]])

    def heat(self, total: NDArray[np.int64]) -> tuple[int, dict[str, Tensor]]:
        """How many images a sum is of, and the mean of each channel by site, (C, 1, 1) or (C,)."""
        count = max(1, round(int(total[-1]) / UNIT))
        parts = np.split(total[:-1], np.cumsum(list(self.widths.values()))[:-1])
        values = (part / (count * UNIT) for part in parts)
        return count, {
            site: torch.from_numpy(value).float()
            for site, value in zip(self.widths, values, strict=True)
        }


class SumVectors:
    """Runs images, one at a time, and tells their vectors."""

    def __init__(self, graph: Graph, channels: Channels) -> None:
        self.graph, self.layout = graph, Layout.of(graph, channels)

    def of(self, x_1chw: Tensor) -> NDArray[np.int64]:
        """The vector of one image."""
        means: dict[str, NDArray[np.float64]] = {}

        def observe(name: str, y: Tensor) -> None:
            if name in self.layout.widths:
                means[name] = y[0].double().flatten(1).mean(1).cpu().numpy() if y.ndim > 2 else (
                    y[0].double().cpu().numpy()
                )  # fmt: skip

        device = next(iter(self.graph.params.values())).device
        with torch.inference_mode():
            run(
                self.graph, {self.graph.input.name: fast_layout(x_1chw.to(device))}, observe=observe
            )
        return self.layout.integers(means)
