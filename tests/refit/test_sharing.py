"""Rounding with error feedback: what it loses for its bits, against plain rounding."""

import pytest
import torch
from torch import Tensor, nn

from distillnet.graph import run
from distillnet.graph.capture import capture
from distillnet.refit.compensation import with_biases
from distillnet.refit.sharing import feel, prune_to, round_columns, share
from distillnet.refit.teacher import teach


def _inputs(n: int = 400, d: int = 12, seed: int = 0) -> Tensor:
    """Inputs that depend on each other, of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator) * torch.logspace(-1, 1, d)
    return torch.randn(n, d, generator=generator) @ mix


def _bits(levels: Tensor) -> float:
    _, counts = levels.unique(return_counts=True)
    share_ = counts / counts.sum()
    return float(-(share_ * share_.log2()).sum())


def _error(weight: Tensor, other: Tensor, x: Tensor) -> float:
    return float((x @ (weight - other).T).square().mean())


@pytest.mark.parametrize("seed", range(4))
def test_it_loses_less_than_plain_rounding_of_as_many_bits(seed: int) -> None:
    x = _inputs(seed=seed)
    weight = torch.randn(64, 12, generator=torch.Generator().manual_seed(9 + seed))
    found = round_columns(weight, x.T @ x / len(x), torch.ones(64), 4.0)
    bits = _bits(found.levels)
    steps = torch.logspace(-2, 1, 60)
    plain = [(step, (weight / step).round()) for step in steps]
    alike = [step * level for step, level in plain if _bits(level) <= bits + 1e-3]
    assert 0.5 < bits < 4
    assert _error(found.weight, weight, x) < 0.5 * _error(alike[0], weight, x)


def test_twice_as_coarse_takes_about_a_bit_less() -> None:
    x, weight = _inputs(), torch.randn(4000, 12, generator=torch.Generator().manual_seed(1))
    fine, coarse = (
        round_columns(weight, x.T @ x / len(x), torch.ones(4000), c) for c in (0.4, 0.8)
    )
    per_column = [
        _bits(fine.levels[:, j]) - _bits(coarse.levels[:, j]) for j in range(weight.shape[1])
    ]
    assert 0.8 < sum(per_column) / len(per_column) < 1.2


def test_what_is_felt_most_is_kept_best() -> None:
    x, weight = _inputs(), torch.ones(2, 12).mul_(0.37)
    felt = torch.tensor([1.0, 10_000.0])
    found = round_columns(weight, x.T @ x / len(x), felt, 1.0)
    errors = (x @ (found.weight - weight).T).square().mean(0)
    assert errors[1] < 0.01 * errors[0]


def test_inputs_that_never_vary_do_no_harm() -> None:
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = round_columns(weight, torch.zeros(3, 3), torch.zeros(4), 1e-3)
    assert bool(torch.isfinite(found.weight).all())


class _Net(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, bias=False), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        )  # fmt: skip


def test_a_network_comes_nearer_the_finer_it_is() -> None:
    graph = with_biases(capture(_Net().eval(), (12, 12)))
    x = torch.randn(60, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    teacher, felt = teach(graph, graph, x, max_bytes=10**8), feel(graph, x)
    right = run(graph, {graph.input.name: x})[graph.output]
    errors = []
    for coarseness in (3e-4, 3e-5, 3e-6):
        found = share(graph, teacher, x, felt, coarseness)
        y = run(found.graph, {graph.input.name: x})[graph.output]
        errors.append(float((y - right).square().mean() / (right - right.mean(0)).square().mean()))
    assert errors[2] < 0.1 * errors[1]
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 1e-3


def test_pruning_leaves_nothing_else_and_makes_up_for_it() -> None:
    graph = with_biases(capture(_Net().eval(), (12, 12)))
    x = torch.randn(60, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    teacher = teach(graph, graph, x, max_bytes=10**8)
    weights = {n.params["weight"]: graph.params[n.params["weight"]] for n in graph.nodes
               if "weight" in n.params}  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    keep = {
        name: torch.rand(w.flatten(1).shape, generator=generator) < 0.8
        for name, w in weights.items()
    }
    found = prune_to(graph, teacher, x, keep)
    for name, kept in keep.items():
        assert bool((found.params[name].flatten(1)[~kept] == 0).all())
    bare = {name: w * keep[name].reshape(w.shape) for name, w in weights.items()}
    right, y, z = (
        run(type(graph)(graph.nodes, params, graph.output), {graph.input.name: x})[graph.output]
        for params in (graph.params, found.params, {**graph.params, **bare})
    )
    assert (y - right).square().mean() < 0.3 * (z - right).square().mean()


def test_levels_stay_within_what_a_file_holds() -> None:
    """However fine the steps: 16 bits of size, which the coder has room for."""
    x, weight = _inputs(), torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    found = round_columns(weight, x.T @ x / len(x), torch.ones(64), 1e-7)
    assert float(found.levels.abs().max()) == 2**16 - 1
