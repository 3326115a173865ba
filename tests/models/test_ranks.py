"""Several processes train one network, and find what one process finds."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from distillnet.models import train
from distillnet.models.ranks import ALONE, Ranks, SharedDropout

# 37 images in batches of 8 leave a last batch of 5, which no two or three ranks share evenly.
_RECIPE = train.Recipe(
    side=6, epochs=2, batch_size=8, peak_lr=0.05, weight_decay=1e-3,
    label_smoothing=0.1, shift=1, flip=True, contrast=0.3,
)  # fmt: skip


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.LocalResponseNorm(5),
        nn.Flatten(),
        nn.Linear(8 * 36, 16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, 3),
    )


def _images(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    labels_n = torch.arange(n) % 3
    return torch.randn(n, 1, 8, 8, generator=generator) + labels_n[:, None, None, None], labels_n


def _trained(ranks: Ranks) -> tuple[train.TrainResult, list[float]]:
    losses: list[float] = []
    result = train.train_on_tensors(
        _network, _images(37), _images(11), _RECIPE, seed=3,
        on_epoch=lambda epoch: losses.append(epoch.loss), ranks=ranks,
    )  # fmt: skip
    return result, losses


def _one_rank(rank: int, count: int, folder: Path) -> None:
    train._has_fast_bfloat16 = lambda: False
    dist.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=count
    )
    result, losses = _trained(Ranks(rank, count))
    found = {**result.state_dict, "losses": torch.tensor(losses)}
    torch.save({**found, "accuracy": torch.tensor(result.test_accuracy)}, folder / f"{rank}.pt")
    dist.barrier()  # nobody leaves while others still speak with it
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads have been seen to abort a process that ends in the usual way


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_find_what_one_process_finds(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":  # the host's own name may lead anywhere
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_one_rank, (count, tmp_path), nprocs=count)
    monkeypatch.setattr(train, "_has_fast_bfloat16", lambda: False)
    alone, losses = _trained(ALONE)
    for rank in range(count):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, weight in alone.state_dict.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["losses"], torch.tensor(losses), rtol=1e-4, atol=0)
        assert found["accuracy"].item() == pytest.approx(alone.test_accuracy)
    # Another seed is another network: the tolerance tells equal from unequal.
    other = train.train_on_tensors(_network, _images(37), _images(11), _RECIPE, seed=4)
    assert (other.state_dict["5.weight"] - alone.state_dict["5.weight"]).abs().max() > 1e-2


@pytest.mark.parametrize("n", [1, 2, 7, 128])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_row_is_somebodys(n: int, count: int) -> None:
    rows = [row for rank in range(count) for row in range(n)[Ranks(rank, count).own(n)]]
    assert rows == list(range(n))


@pytest.mark.parametrize("shape", [(10, 6), (10, 3, 4, 5)])
def test_shared_dropout_is_dropout_of_the_whole_batch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(5)
    want, after = nn.Dropout(0.4)(x), torch.rand(3)
    parts = []
    for rank in range(3):
        ranks = Ranks(rank, 3)
        dropout = SharedDropout(0.4, ranks)
        dropout.batch = len(x)
        torch.manual_seed(5)
        parts.append(dropout(x[ranks.own(len(x))]))
        assert torch.equal(torch.rand(3), after)  # the next draw is everybody's, too
    assert torch.equal(torch.cat(parts), want)


def test_views_of_a_part_are_those_of_the_whole_batch() -> None:
    x_nchw, _ = _images(9)
    torch.manual_seed(1)
    want = train._augment(x_nchw, _RECIPE)
    torch.manual_seed(1)
    assert torch.equal(train._augment(x_nchw, _RECIPE, slice(3, 7)), want[3:7])
