"""Which part of the work is this process's, where several train one network or share a pass.

torchrun starts the processes; they talk over gloo, whatever device computes. In a training each
draws the same random numbers for the whole batch and works on its own rows of it. Together they do
what one process does: the same crops, the same dropout and, but for rounding, the same sums.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ALONE", "Ranks", "SharedDropout", "joined_ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process's number among ``count`` of them, and among this machine's."""

    rank: int
    count: int
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether it is this process that writes files and talks to the user."""
        return self.rank == 0

    def own(self, n: int) -> slice:
        """This process's rows of ``n``; all together have each row once.

        >>> [Ranks(rank, 3).own(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(n * self.rank // self.count, n * (self.rank + 1) // self.count)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients are from now on the mean over all processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def total(self, value: float) -> float:
        """The sum of what every process has."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item()

    def tell(self, number: int) -> int:
        """The first process's number, in all of them; each waits for it."""
        if self.count == 1:
            return number
        told = torch.tensor([number])
        dist.broadcast(told, 0)
        return int(told)


ALONE = Ranks(0, 1)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun has started, joined over gloo; this one alone without torchrun.

    >>> with joined_ranks() as ranks:
    ...     ranks.count
    1
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


class SharedDropout(nn.Module):
    """nn.Dropout over a whole batch, of which this process has its rows."""

    def __init__(self, p: float, ranks: Ranks) -> None:
        super().__init__()
        self.p, self.ranks = p, ranks
        self.batch = 0  # images in the whole batch; to be set before each of them

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ...) -> the same shape."""
        if not self.training:
            return x
        whole = x.new_ones(self.batch, *x.shape[1:])
        if whole.ndim == 4:  # random numbers are drawn in the order of memory
            whole = whole.contiguous(memory_format=torch.channels_last)
        return x * F.dropout(whole, self.p)[self.ranks.own(self.batch)]
