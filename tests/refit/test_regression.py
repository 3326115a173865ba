"""Sampled places and fits: what is read where, and closed forms against others' solvers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from cases import GEOMETRIES, layer_of, random
from distillnet.cut.thin import Split
from distillnet.graph import run
from distillnet.refit.depthwise import fit_each
from distillnet.refit.regression import Thin, fit_affine, fit_thin
from distillnet.refit.samples import choose_places, outputs_at, patches_at, same_places


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_times_weights_are_the_output_at_the_places(geometry: str) -> None:
    graph, layer = layer_of(nn.Conv2d(3, 4, bias=False, **GEOMETRIES[geometry]), 11)
    x, weight = random(5, 3, 11, 11), graph.params[layer.params["weight"]]
    for per_image in (6, 1000):
        places = choose_places(layer.shape, 5, per_image)
        rows = patches_at(layer, tuple(weight.shape[2:]), x, places)
        want = outputs_at(run(graph, {graph.input.name: x}, [layer.name])[layer.name], places)
        assert torch.allclose(rows @ weight.flatten(1).T, want)


@pytest.mark.parametrize("per_image", [5, 40, 48])
def test_no_place_of_a_small_map_is_drawn_twice(per_image: int) -> None:
    places = choose_places((8, 7, 7), 200, per_image)
    assert places.shape == (200, per_image)
    assert all(len(of_one.unique()) == per_image for of_one in places)
    assert len(places.unique()) == 49


def test_places_show_the_same_part_of_the_image_at_another_size() -> None:
    places = choose_places((1, 8, 8), 1, 1000)
    assert torch.equal(same_places(places, (1, 8, 8), (1, 8, 8)), places)
    coarse = same_places(places, (1, 8, 8), (1, 4, 4))[0].reshape(8, 8)
    want = torch.arange(16).reshape(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(coarse, want)


@pytest.mark.parametrize("rows", [30, 400], ids=["fewer rows than columns", "more"])
def test_the_fit_is_ridge_regression(rows: int) -> None:
    """Against scikit-learn: some ridge of the grid, of the residual on top of the old weights."""
    x, weight, bias = random(rows, 50), random(4, 50, seed=1), random(4, seed=2)
    aims = x @ random(50, 4, seed=3) + 0.5 * random(rows, 4, seed=4)
    fitted, offset = fit_affine(x, aims, weight, bias)
    residual = aims - x @ weight.T - bias
    unit = float((x - x.mean(0)).square().sum() / 50)
    deviations = []
    for ridge in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        other = Ridge(alpha=ridge * unit, solver="cholesky").fit(x.numpy(), residual.numpy())
        now = np.concatenate([weight + other.coef_, (bias + other.intercept_)[:, None]], 1)
        mine = np.concatenate([fitted.numpy(), offset[:, None].numpy()], 1)
        deviations.append(np.abs(now - mine).max() / np.abs(now).max())
    assert min(deviations) < 1e-8


@pytest.mark.parametrize("fit", ["affine", "thin", "each"])
@pytest.mark.parametrize("rows", [22, 62, 402])
def test_views_of_an_image_are_no_more_images(fit: str, rows: int) -> None:
    """Seen three times over, rows tell what they told once, the ridge included.

    Were a view fitted on while another of the same image chooses the ridge, the least would do.
    """
    x, weight, bias = random(rows, 30), random(4, 30, seed=1), random(4, seed=2)
    aims = x @ random(30, 4, seed=3) + 8 * random(rows, 4, seed=4)

    def fitted(x: Tensor, aims: Tensor, image_r: Tensor | None = None) -> Tensor:
        match fit:
            case "affine":
                return fit_affine(x, aims, weight, bias, (), image_r)[0]
            case "thin":
                thin = Thin(torch.eye(4).double(), Split(2), (4, 30))
                return fit_thin(x, aims, weight, bias, thin, (), image_r)[0]
            case _:
                x_rcd = x[:, None].expand(-1, 4, -1)
                return fit_each(x_rcd, aims, weight, bias, (), image_r)[0]

    once = fitted(x, aims, torch.arange(rows))
    thrice = fitted(x.repeat(3, 1), aims.repeat(3, 1), torch.arange(rows).repeat(3))
    assert torch.allclose(once, thrice, rtol=1e-6, atol=1e-8)
    fooled = fitted(x.repeat(3, 1), aims.repeat(3, 1))
    assert not torch.allclose(once, fooled, rtol=0.01, atol=0.01)


def test_below_zero_anything_is_as_good_behind_a_relu() -> None:
    """One input tells the positive aims exactly; a plain fit is bent by those below zero."""
    x = random(500, 1)
    z = torch.where(x > 0, 2 * x, 7 * x)  # behind a ReLU: 2 x, or nothing
    relu = ((-float("inf"), 0.0),)
    errors = {}
    for name, flat in (("plain", ()), ("relu", relu)):
        weight, bias = fit_affine(x, z, torch.zeros(1, 1).double(), torch.zeros(1).double(), flat)
        errors[name] = float((torch.relu(x @ weight.T + bias) - torch.relu(z)).square().mean())
    assert errors["relu"] < 0.5 * errors["plain"]


def test_a_thin_fit_is_reduced_rank_regression() -> None:
    """With nothing to hide behind and equal needs: Izenman's, 1975, by least squares and an SVD."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 9, generator=generator).double()
    aims = x @ torch.randn(9, 6, generator=generator).double() + 0.5
    aims += 0.1 * torch.randn(400, 6, generator=generator).double()
    weight, bias = torch.zeros(6, 9).double(), torch.zeros(6).double()
    thin = Thin(torch.eye(6).double(), Split(3), (6, 9))
    low, offset = fit_thin(x, aims, weight, bias, thin)
    assert torch.linalg.matrix_rank(low) == 3
    centred, wanted = x - x.mean(0), aims - aims.mean(0)
    fitted = centred @ torch.linalg.lstsq(centred, wanted).solution
    u, values, v = torch.linalg.svd(fitted, full_matrices=False)
    best = u[:, :3] * values[:3] @ v[:3] + aims.mean(0)
    assert torch.allclose(x @ low.T + offset, best, atol=2e-3)
    whole = fit_thin(x, aims, weight, bias, Thin(torch.eye(6).double(), Split(6), (6, 9)))
    for found, affine in zip(whole, fit_affine(x, aims, weight, bias), strict=True):
        assert torch.allclose(found, affine, atol=1e-3)


def test_a_thin_fit_needs_no_more_rows_than_columns() -> None:
    x, wanted = random(40, 90, seed=1), random(90, 3, seed=2) @ random(3, 6, seed=3)
    weight, bias = torch.zeros(6, 90).double(), torch.zeros(6).double()
    thin = Thin(torch.eye(6).double(), Split(3), (6, 90))
    low, offset = fit_thin(x, x @ wanted, weight, bias, thin)
    assert torch.linalg.matrix_rank(low) == 3
    assert torch.allclose(x @ low.T + offset, x @ wanted, atol=1e-2 * float(wanted.std()))


@pytest.mark.parametrize("separable", [False, True])
def test_inputs_that_depend_on_each_other_can_be_fitted(separable: bool) -> None:
    """Three equal channels, next to no noise: rounding makes float32 Gram matrices indefinite."""
    grey = random(3000, 1, 5, 5, seed=1).float() * 1e-3 + 7
    x = grey.expand(-1, 3, -1, -1).flatten(1)
    weight = random(8, 75, seed=2).float()
    aims = x @ (weight + 0.01).T
    fitted, bias = fit_affine(x, aims, weight, torch.zeros(8))
    assert torch.allclose(x @ fitted.T + bias, aims, atol=1e-2)
    thin = Thin(torch.eye(8), Split(4, separable), (8, 3, 5, 5))
    low, bias = fit_thin(x, aims, weight, torch.zeros(8), thin)
    error = (x @ low.T + bias - aims).square().mean()
    assert error < (aims - aims.mean(0)).square().mean()


@pytest.mark.parametrize("rows", [20, 200])  # fewer than columns, and more
def test_values_that_are_not_finite_are_no_fit(rows: int) -> None:
    x = random(rows, 40)
    x[3, 5] = torch.nan
    with pytest.raises(torch.linalg.LinAlgError, match="not finite"):
        fit_affine(x, random(rows, 3), torch.zeros(3, 40).double(), torch.zeros(3).double())
