"""A network at one input size, with the images at that size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distillnet.graph import Graph
from distillnet.graph.channels import Channels

__all__ = ["Sized", "beside"]


@dataclass(frozen=True)
class Sized:
    """The original network captured at one input size, and the images at that size.

    Attributes:
        x_nchw: statistics images, then search images; the same at every size.
        views: of each image: each part holds its images, then those from elsewhere (``views``).
    """

    graph: Graph
    channels: Channels
    x_nchw: Tensor
    n_statistics: int
    views: int = 1

    @property
    def x_statistics(self) -> Tensor:
        """What orders of elimination are measured on."""
        return self.x_nchw[: self.n_statistics]

    @property
    def x_search(self) -> Tensor:
        return self.x_nchw[self.n_statistics :]

    @property
    def image_n(self) -> Tensor:
        """Which image each of ``x_nchw`` shows, (N,)."""
        images = torch.arange(len(self.x_nchw) // self.views)
        return beside([images] * self.views, len(self.x_search) // self.views)

    @property
    def view_n(self) -> Tensor:
        """Which view of it, (N,): 0 is the image itself."""
        images = torch.arange(len(self.x_nchw) // self.views)
        views = [torch.full_like(images, view) for view in range(self.views)]
        return beside(views, len(self.x_search) // self.views)

    def beside(self, others: Sequence[Tensor]) -> "Sized":
        """With other views (N, C, H, W) of all images."""
        if not others:
            return self
        x_nchw = beside([self.x_nchw, *others], len(self.x_search))
        views = 1 + len(others)
        return replace(self, x_nchw=x_nchw, n_statistics=views * self.n_statistics, views=views)


def beside(of_views: Sequence[Tensor], n_search: int) -> Tensor:
    """What belongs to each view of images, in the order of ``Sized``.

    The last ``n_search`` of each view are of search images.

    >>> beside([torch.tensor([1, 2, 3]), torch.tensor([-1, -2, -3])], 2).tolist()
    [1, -1, 2, 3, -2, -3]
    """
    first = len(of_views[0]) - n_search
    return torch.cat([*(view[:first] for view in of_views), *(view[first:] for view in of_views)])
