"""Processes that share a pass over images, as ``torchrun`` starts them; usually there is one.

They talk through torch.distributed: sums move between processes' memory, whatever device computed
them, by gloo.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.missions.gathering import Gathered
from distillnet.missions.parts import gathered_from, tensors_of

__all__ = ["ALONE", "Ranks", "joined_ranks"]


@dataclass(frozen=True)
class Ranks:
    """The processes of a pass, of which this is one.

    Attributes:
        index, count: which of how many.
        local: which of this machine's.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the result."""
        return self.index == 0

    def tell(self, number: int) -> int:
        """The first process's number, in all of them; each waits for it."""
        if self.count == 1:
            return number
        told = torch.tensor([number])
        dist.broadcast(told, 0)
        return int(told)

    def gather(
        self, mine: Gathered | None, graph: Graph, channels: Channels, samples: int
    ) -> Gathered | None:
        """What all processes have gathered together, in the first; None in others."""
        if self.count == 1:
            return mine
        sent = None if mine is None else tensors_of(mine)
        boxes: list[dict[str, torch.Tensor] | None] = [None] * self.count
        dist.gather_object(sent, boxes if self.first else None)
        total = None
        for box in boxes:
            if box is not None:
                more = gathered_from(box, graph, channels)
                if total is None:
                    total = more
                else:
                    total.add(more, samples)
        return total


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun started, joined until the block ends; one where it did not."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
