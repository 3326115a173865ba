"""Data-parallel training on this machine's cores, measured: what ``scaling`` is checked against.

Every rank is a process with one thread. They exchange gradients over gloo, as a parameter server
or a reduction tree written here, after the backward pass, or as DistributedDataParallel does it.

What the prediction needs to know is measured by the same processes in the same rounds: computing
alone and together, a transfer, an addition, then a step with each exchange. Whatever else the
machine does falls on all of them, and medians over the rounds are compared.
"""

import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.playbook.quantities import FLOAT32_BYTES
from distillnet.playbook.scaling import Cluster, Job

__all__ = ["PREDICTED_AS", "Measured", "measure_ranks", "step_costs"]

_DDP = "DistributedDataParallel"
# What is measured here -> by which of ``scaling.EXCHANGES`` it is predicted; gloo has a ring.
PREDICTED_AS: Mapping[str, str] = {
    "parameter server": "parameter server",
    "reduction tree": "reduction tree",
    _DDP: "ring",
}
_WARM_UP = 2


@dataclass(frozen=True)
class Measured:
    """Seconds of a step, the median over the rounds, and what the prediction of it goes by."""

    workers: int
    exchange: str
    step_s: float
    cluster: Cluster


def measure_ranks(
    module: nn.Module, shape: tuple[int, ...], batch: int, workers: int, steps: int
) -> tuple[Job, tuple[Measured, ...]]:
    """Time steps of training ``module`` on noise (batch, *shape) with two local ranks or more.

    All exchanges take their turns in the same processes: those that are written here, and
    PyTorch's DistributedDataParallel, which is what ``train`` uses.
    """
    n_bytes = FLOAT32_BYTES * sum(p.numel() for p in module.parameters())
    whole_s, part_s, together_s, two_way_s, two_messages_s, add_s, *steps_s = _spawned(
        _measure_rank, workers, module, shape, batch, n_bytes, steps
    )
    image_s, fixed_s = _split(batch, whole_s, part_s)
    alone_s = fixed_s + math.ceil(batch / workers) * image_s
    # As many cores as the ranks had in effect, other work on the machine taken off.
    cores = workers * min(1.0, alone_s / together_s)
    latency_s = two_messages_s / 2
    # A transfer has two busy ends, which waited for each other where there were fewer cores.
    transfer_s = max(two_way_s / 2 - latency_s, 1e-9) / max(1.0, 2 / cores)
    cluster = Cluster(
        image_s=image_s, fixed_s=fixed_s, bandwidth=n_bytes / transfer_s, latency_s=latency_s,
        add_bytes_s=n_bytes / add_s, cores=cores,
    )  # fmt: skip
    names = (*_EXCHANGES, _DDP)
    return Job(batch, n_bytes), tuple(
        Measured(workers, name, s, cluster) for name, s in zip(names, steps_s, strict=True)
    )


def step_costs(
    module: nn.Module, shape: tuple[int, ...], batch: int, steps: int
) -> tuple[float, float]:
    """Seconds an image and seconds a step beside them, of training here on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = [_Steps(copy.deepcopy(module), shape, n) for n in (batch, _part(batch))]
        whole_s, part_s = (median(times[_WARM_UP:]) for times in _in_turns(runs, steps))
    finally:
        torch.set_num_threads(threads)
    return _split(batch, whole_s, part_s)


def _split(batch: int, whole_s: float, part_s: float) -> tuple[float, float]:
    """Seconds an image, and a step beside them, of what a batch and a part of it took."""
    part = _part(batch)
    image_s = (whole_s - part_s) / (batch - part) if whole_s > part_s else whole_s / batch
    return image_s, max(0.0, whole_s - batch * image_s)


def _part(batch: int) -> int:
    return max(1, batch // 4)


def _spawned(function: Callable[..., list[float]], workers: int, *args: Any) -> list[float]:
    """What rank 0 of some processes returns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.multiprocessing.spawn(
            _begin, (function, workers, folder, args), nprocs=workers, join=True
        )
        return torch.load(folder / "found", weights_only=True)


def _begin(
    rank: int,
    function: Callable[..., list[float]],
    workers: int,
    folder: Path,
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":  # the host's own name may lead anywhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=workers
    )
    try:
        found = function(*args)
        if rank == 0:
            torch.save(found, folder / "found")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _measure_rank(
    module: nn.Module, shape: tuple[int, ...], batch: int, n_bytes: int, steps: int
) -> list[float]:
    """Medians of seconds, seen by rank 0.

    Of a batch and of a quarter of it alone, of the ranks' shares at once, of a transfer there and
    back, of one of next to nothing, of an addition, and of a step with each exchange.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()
    share = len(range(rank, batch, workers))
    # With gradients gathered and laid out again, as before and after each exchange.
    alone = [_Steps(copy.deepcopy(module), shape, n, _as_it_is) for n in (batch, _part(batch))]
    together = _Steps(copy.deepcopy(module), shape, share, _as_it_is)
    flat, small = torch.zeros(n_bytes // FLOAT32_BYTES), torch.zeros(1)
    other = torch.zeros_like(flat)

    def first(run: Callable[[], object]) -> Callable[[], object]:
        return lambda: run() if rank == 0 else None

    def there_and_back(tensor: Tensor) -> None:  # so that one clock tells
        for sender in (0, 1) if rank < 2 else ():
            dist.send(tensor, 1 - rank) if rank == sender else dist.recv(tensor, 1 - rank)

    def at_once() -> None:
        together()
        dist.barrier()  # the slowest decides, as it does where gradients are exchanged

    exchanging = [
        _Steps(copy.deepcopy(module), shape, share, sum_up) for sum_up in _EXCHANGES.values()
    ]
    parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(module).requires_grad_(True))
    runs: list[Callable[[], object]] = [
        *map(first, alone),
        at_once,
        partial(there_and_back, flat),
        partial(there_and_back, small),
        first(lambda: flat.add_(other)),
        *exchanging,
        _Steps(parallel, shape, share),
    ]
    times = _in_turns(runs, steps, dist.barrier)
    return [median(found[_WARM_UP:]) for found in times]


def _in_turns(
    runs: Sequence[Callable[[], object]],
    steps: int,
    before: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Seconds of each call, (runs, steps): one of each in turn, that all see the same machine.

    Args:
        before: called before each of them, out of the time.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_WARM_UP + steps):
        for run, found in zip(runs, times, strict=True):
            before()
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return times


class _Steps:
    """A step of training on noise, each time it is called, gradients exchanged or not."""

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        batch: int,
        sum_up: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.module = module.train().requires_grad_(True)
        self.optimiser = torch.optim.SGD(module.parameters(), lr=1e-5, momentum=0.9)
        self.x = torch.randn(batch, *shape)
        self.labels_n = torch.zeros(batch, dtype=torch.long)
        self.sum_up = sum_up

    def __call__(self) -> None:
        self.optimiser.zero_grad()
        F.cross_entropy(self.module(self.x), self.labels_n).backward()
        if self.sum_up is not None:
            _mean_gradients(self.module, self.sum_up)
        self.optimiser.step()


def _mean_gradients(module: nn.Module, sum_up: Callable[[Tensor], None]) -> None:
    params = [p for p in module.parameters() if p.grad is not None]
    flat = nn.utils.parameters_to_vector([p.grad for p in params if p.grad is not None])
    sum_up(flat)
    flat /= dist.get_world_size()
    nn.utils.vector_to_parameters(flat, [p.grad for p in params if p.grad is not None])


def _as_it_is(flat: Tensor) -> None:
    pass


def _by_server(flat: Tensor) -> None:
    """Sum over all ranks: the first receives from the others in turn, and sends the sum to each."""
    rank, workers = dist.get_rank(), dist.get_world_size()
    if rank:
        dist.send(flat, 0)
        dist.recv(flat, 0)
        return
    other = torch.empty_like(flat)
    for sender in range(1, workers):
        dist.recv(other, sender)
        flat += other
    for receiver in range(1, workers):
        dist.send(flat, receiver)


def _by_tree(flat: Tensor) -> None:
    """Sum over all ranks: in pairs, the sums in pairs again, and back the same way."""
    rank, workers = dist.get_rank(), dist.get_world_size()
    distances = [2**i for i in range(math.ceil(math.log2(workers)))]
    other = torch.empty_like(flat)
    for distance in distances:
        if rank % (2 * distance) == distance:
            dist.send(flat, rank - distance)
            break
        if rank + distance < workers:
            dist.recv(other, rank + distance)
            flat += other
    for distance in reversed(distances):
        if rank % (2 * distance) == distance:
            dist.recv(flat, rank - distance)
        elif rank % (2 * distance) == 0 and rank + distance < workers:
            dist.send(flat, rank + distance)


_EXCHANGES: Mapping[str, Callable[[Tensor], None]] = {
    "parameter server": _by_server,
    "reduction tree": _by_tree,
}
