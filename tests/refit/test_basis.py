"""Thin layers: exact where the rank is low, else no other basis leaves out less."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import GEOMETRIES, layer_of, random
from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import split
from distillnet.cut.thin import Split, join, matrix
from distillnet.graph.channels import analyse
from distillnet.refit.basis import column_filters, factor, output_basis, output_values
from plans import deviation, scores


@pytest.mark.parametrize("separable", [False, True], ids=["thin", "separable"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_layer_of_low_rank_is_split_exactly(geometry: str, separable: bool) -> None:
    """Its cost is that of the two layers as layers of their own."""
    graph, layer = layer_of(nn.Conv2d(3, 8, **GEOMETRIES[geometry]), 11)
    name = layer.params["weight"]
    shape, x = graph.params[name].shape, random(3, 3, 11, 11)
    n_rows, n_columns = matrix(graph.params[name], separable=separable).shape
    factors = random(2, n_rows, seed=1), random(2, n_columns, seed=2)
    filters, combination = join(*factors, shape, separable=separable)
    low = torch.einsum("rnij,mrkl->mnikjl", filters, combination).reshape(shape)
    assert torch.allclose(matrix(low, separable=separable), factors[0].T @ factors[1])
    graph = replace(graph, params={**graph.params, name: low})
    plan = Plan(splits={layer.name: Split(2, separable)})
    small = split(graph, layer.name, plan.splits[layer.name])
    assert deviation(scores(small, x), scores(graph, x)) < 1e-12
    assert small.params[f"{name}:basis"].shape == filters.shape
    assert small.params[f"{name}:combination"].shape == combination.shape
    for field in ("params", "macs"):
        predicted = getattr(cost(graph, analyse(graph), plan), field)
        assert predicted == getattr(cost(small, analyse(small)), field)
    # One dimension less is the nearest there is, by numpy's decomposition.
    values = np.linalg.svd(matrix(low, separable=separable).numpy(), compute_uv=False)
    thin = split(graph, layer.name, Split(1, separable)).params
    halves = thin[f"{name}:basis"], thin[f"{name}:combination"]
    product = torch.einsum("rnij,mrkl->mnikjl", *halves).reshape(shape)
    assert torch.linalg.norm(product - low).item() == pytest.approx(values[1], rel=1e-9)


def test_the_basis_leaves_out_what_the_mission_feels_least() -> None:
    """The eigenvalues left out are the felt error, and no other subspace does better."""
    rows, mix = random(500, 6), random(6, 6, seed=1)
    rows = (rows - rows.mean(0)) @ mix
    need = random(4, 6, seed=2)
    need = need.T @ need + torch.eye(6)
    covariance = rows.T @ rows / len(rows)
    values = output_values(need, covariance)

    def felt(error: Tensor) -> float:
        return float(torch.einsum("ri,ij,rj->r", error, need, error).mean())

    for rank in range(6):
        basis, back = output_basis(need, covariance, rank)
        projected = rows @ (back @ basis).T
        assert felt(rows - projected) == pytest.approx(values[rank:].sum().item(), rel=0.01)
        for seed in range(20):
            other = torch.linalg.qr(random(6, max(rank, 1), seed=10 + seed))[0][:, :rank]
            other_rows = rows @ other
            again = torch.linalg.lstsq(other_rows, rows).solution if rank else None
            rest = rows if again is None else rows - other_rows @ again
            assert felt(rest) >= 0.99 * values[rank:].sum().item()


def test_column_filters_leave_out_least_and_together_nothing() -> None:
    """Against alternating least squares from random starts, each column of the kernel by itself."""
    weight, need = random(5, 4, 3, 3), random(7, 5, seed=1)
    need = need.T @ need
    flat = matrix(weight, separable=True)
    rows = random(300, 12, seed=2) @ random(12, 12, seed=3)
    covariance = rows.T @ rows / len(rows)
    filters, combination = column_filters(flat, need, covariance)
    assert torch.allclose(filters.T @ combination, flat, atol=1e-8)

    def felt(matrix_dm: Tensor) -> float:
        error = (flat - matrix_dm).unflatten(1, (3, 5))
        return torch.einsum("ajm,ab,bjn,mn->", error, covariance, error, need).item()

    for rank in (1, 3, 6):
        least = felt(filters[:rank].T @ combination[:rank])
        for seed in range(5):
            side = random(12, rank, seed=10 + seed)
            for _ in range(30):  # each side in turn; whitened, these are ordinary least squares
                root, tall = torch.linalg.cholesky(covariance), torch.linalg.cholesky(need)
                seen = (root.T @ flat).unflatten(1, (3, 5)) @ tall
                other = torch.linalg.lstsq(root.T @ side, seen.flatten(1)).solution
                side = torch.linalg.lstsq(other.T, (seen.flatten(1)).T).solution.T
                side = torch.linalg.solve_triangular(root.T, side, upper=True)
            found = (other.unflatten(1, (3, 5)) @ torch.linalg.inv(tall)).flatten(1)
            assert least <= 1.01 * felt(side @ found)


def test_a_covariance_is_factored_as_it_is_where_it_can_be() -> None:
    rows = random(100, 8)
    covariance = rows.T @ rows
    kept = covariance.clone()
    lower = factor(covariance, 0.0)
    assert torch.allclose(lower @ lower.T, covariance)
    assert torch.equal(covariance, kept)
    with pytest.raises(torch.linalg.LinAlgError, match="no ridge"):
        factor(torch.full((3, 3), torch.nan), 0.0)
    with pytest.raises(torch.linalg.LinAlgError, match="no ridge"):
        factor(-torch.eye(3), 0.0)
