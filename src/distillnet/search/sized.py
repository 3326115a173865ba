"""A network at one input size, with the images at that size."""

from dataclasses import dataclass

from torch import Tensor

from distillnet.graph import Graph
from distillnet.graph.channels import Channels

__all__ = ["Sized"]


@dataclass(frozen=True)
class Sized:
    """The original network captured at one input size, and the images at that size.

    Attributes:
        x_nchw: statistics images, then search images; the same at every size.
    """

    graph: Graph
    channels: Channels
    x_nchw: Tensor
    n_statistics: int

    @property
    def x_statistics(self) -> Tensor:
        """What orders of elimination are measured on."""
        return self.x_nchw[: self.n_statistics]

    @property
    def x_search(self) -> Tensor:
        return self.x_nchw[self.n_statistics :]
