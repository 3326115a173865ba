"""FireCaffe's model of data-parallel training, and that local ranks compute what they should."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from distillnet.playbook.ranks import _by_server, _by_tree, _mean_gradients
from distillnet.playbook.scaling import EXCHANGES, Cluster, Job, speedup, step_seconds

ALONE = Cluster(image_s=1e-3, fixed_s=0.0, bandwidth=1e9)
JOB = Job(batch=1024, gradient_bytes=10**8)


@pytest.mark.parametrize(
    ("exchange", "workers", "transfers"),
    [
        ("parameter server", 2, 2),
        ("parameter server", 8, 14),
        ("reduction tree", 2, 2),
        ("reduction tree", 8, 6),
        ("reduction tree", 5, 6),
        ("ring", 2, 1),
        ("ring", 8, 1.75),
    ],
)
def test_transfers_in_a_row(exchange: str, workers: int, transfers: float) -> None:
    """Server 2 (p - 1), tree 2 log2 p (FireCaffe, eq. 4), ring 2 (p - 1) / p."""
    seconds = EXCHANGES[exchange].seconds(JOB, ALONE, workers)
    assert seconds == pytest.approx(transfers * JOB.gradient_bytes / ALONE.bandwidth)


def test_steps_by_hand() -> None:
    cluster = Cluster(1e-3, 0.01, 1e9, latency_s=1e-4, add_bytes_s=1e10)
    # 4 workers: 256 images each and 10 ms; two rounds up, that add, and two down.
    by_hand = 0.01 + 0.256 + 4 * (0.1 + 1e-4) + 2 * 0.01
    assert step_seconds(JOB, cluster, 4, "reduction tree") == pytest.approx(by_hand)
    assert speedup(JOB, cluster, 4, "reduction tree") == pytest.approx(1.034 / by_hand)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_worker_is_as_fast_as_itself(exchange: str) -> None:
    assert speedup(JOB, ALONE, 1, exchange) == 1
    assert EXCHANGES[exchange].seconds(JOB, ALONE, 1) == 0


def test_cores_that_are_shared_are_waited_for() -> None:
    shared = Cluster(1e-3, 0.0, 1e9, cores=2)
    # Four ranks on two cores compute no faster than two.
    computing = step_seconds(Job(1024, 0), shared, 4, "ring")
    assert computing == step_seconds(Job(1024, 0), shared, 2, "ring") == pytest.approx(0.512)
    # Of two transfers at once each has half of the two cores, one end of it a quarter.
    waits = EXCHANGES["reduction tree"].seconds(JOB, shared, 4)
    assert waits == pytest.approx(EXCHANGES["parameter server"].seconds(JOB, shared, 4))


def test_fewer_parameters_let_more_workers_help() -> None:
    """The slides: fewer weights, more scalability in training."""
    small, large = (Job(1024, 4 * params) for params in (1_248_424, 61_100_840))
    for exchange in EXCHANGES:
        assert speedup(small, ALONE, 32, exchange) > speedup(large, ALONE, 32, exchange)


def _rank(rank: int, count: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=count
    )
    found = []
    for sum_up in (_by_server, _by_tree):
        flat = torch.arange(6.0) * (rank + 1)
        sum_up(flat)
        found.append(flat)
    layer = torch.nn.Linear(2, 3)
    layer.weight.grad, layer.bias.grad = torch.full((3, 2), float(rank)), torch.full((3,), 1.0)
    _mean_gradients(layer, _by_tree)
    found.append(torch.cat([layer.weight.grad.flatten(), layer.bias.grad]))
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_exchanges_sum_over_all_ranks(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":  # the host's own name may lead anywhere
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_rank, (count, tmp_path), nprocs=count)
    for rank in range(count):
        server, tree, mean = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        want = torch.arange(6.0) * sum(range(1, count + 1))
        assert torch.equal(server, want)
        assert torch.equal(tree, want)
        assert torch.equal(mean, torch.tensor([(count - 1) / 2] * 6 + [1.0] * 3))
