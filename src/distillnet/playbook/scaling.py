"""How much faster many workers train: FireCaffe's model of data-parallel training.

Every worker computes the gradients of its share of a batch; then all of them are summed and every
worker gets the sum. How long that takes depends on how it is done:

- parameter server: one worker receives the gradients of the others, one after the other, and sends
  each of them the sum, 2 (p - 1) transfers in a row;
- reduction tree: workers add in pairs, the sums in pairs again, and the sum goes back the same way,
  2 log2(p) transfers in a row (Iandola et al., "FireCaffe", eq. 4);
- ring: every worker passes a p-th of the gradients on, 2 (p - 1) times (gloo and NCCL).

FireCaffe lets the server's link carry p gradients both ways at once, p |W| / bandwidth; here the
server is one of the workers and does one thing at a time, as the ranks that ``ranks`` measures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["EXCHANGES", "Cluster", "Exchange", "Job", "speedup", "step_seconds"]


@dataclass(frozen=True)
class Job:
    """What is trained: images a step, all workers together, and bytes of one set of gradients."""

    batch: int
    gradient_bytes: int


@dataclass(frozen=True)
class Cluster:
    """What it is trained on.

    Attributes:
        image_s: seconds that one worker computes for an image, forward and backward.
        fixed_s: seconds a step beside them, which the update of the weights takes, for instance.
        bandwidth: bytes a second from one worker to another.
        latency_s: seconds until a message begins to arrive.
        add_bytes_s: bytes of gradients a second that a worker adds to its own.
        cores: where all workers share this many cores, one is busy for each worker that computes,
            and two for each transfer; None where every worker is a machine of its own.
    """

    image_s: float
    fixed_s: float
    bandwidth: float
    latency_s: float = 0.0
    add_bytes_s: float = math.inf
    cores: float | None = None

    def waiting(self, busy: float) -> float:
        """By how much all slows down while ``busy`` cores are wanted."""
        return 1.0 if self.cores is None else max(1.0, busy / self.cores)


@dataclass(frozen=True)
class Exchange:
    """Rounds one after the other: transfers at once in each, and which part of the gradients."""

    rounds: Callable[[int], tuple[tuple[int, float], ...]]

    def seconds(self, job: Job, cluster: Cluster, workers: int) -> float:
        """How long the workers take to sum their gradients."""
        rounds = self.rounds(workers)
        total = 0.0
        for number, (transfers, part) in enumerate(rounds):
            n_bytes = part * job.gradient_bytes
            moving = n_bytes / cluster.bandwidth * cluster.waiting(2 * transfers)
            # The first half of all rounds sums, the second spreads the sum.
            adds = number < len(rounds) // 2
            adding = n_bytes / cluster.add_bytes_s * cluster.waiting(transfers) if adds else 0.0
            total += cluster.latency_s + moving + adding
        return total


def _server(workers: int) -> tuple[tuple[int, float], ...]:
    return ((1, 1.0),) * (2 * (workers - 1))


def _tree(workers: int) -> tuple[tuple[int, float], ...]:
    up, left = [], workers
    while left > 1:
        up.append((left // 2, 1.0))
        left -= left // 2
    return (*up, *reversed(up))


def _ring(workers: int) -> tuple[tuple[int, float], ...]:
    return ((workers, 1 / workers),) * (2 * (workers - 1))


EXCHANGES: Mapping[str, Exchange] = {
    "parameter server": Exchange(_server),
    "reduction tree": Exchange(_tree),
    "ring": Exchange(_ring),
}


def step_seconds(job: Job, cluster: Cluster, workers: int, exchange: str) -> float:
    """Seconds of one step of training; the largest share of the batch decides.

    >>> cluster = Cluster(image_s=0.01, fixed_s=0.0, bandwidth=1e9)
    >>> [step_seconds(Job(64, 10**8), cluster, p, "reduction tree") for p in (1, 4)]
    [0.64, 0.56]
    """
    share = math.ceil(job.batch / workers)
    computing = cluster.fixed_s + share * cluster.image_s
    return computing * cluster.waiting(workers) + EXCHANGES[exchange].seconds(job, cluster, workers)


def speedup(job: Job, cluster: Cluster, workers: int, exchange: str) -> float:
    """How many times faster than one worker."""
    alone = step_seconds(job, cluster, 1, exchange)
    return alone / step_seconds(job, cluster, workers, exchange)
