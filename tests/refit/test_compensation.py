"""Sampled places, the teacher, and refitting: right on every structure, or out of the way."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from architectures import ARCHITECTURES, SIDE, build
from distillnet.classes import Mission
from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import compact, split
from distillnet.cut.thin import Split, join, matrix
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.operators import Node
from distillnet.refit.basis import column_filters, output_basis
from distillnet.refit.compensation import compensate, flat_parts
from distillnet.refit.regression import Thin, fit_affine, fit_thin
from distillnet.refit.samples import choose_places, outputs_at, patches_at, same_places
from distillnet.refit.teacher import teach
from distillnet.search.allocation import Cut, channel_plan
from distillnet.search.evidence import measure_evidence
from distillnet.search.splits import spectra
from plans import check_plan, deviation, random_plan, scores

GEOMETRIES = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3, "padding": 1},
    "7x7 stride 2": {"kernel_size": 7, "stride": 2, "padding": 3},
    "oblong": {"kernel_size": (1, 5), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 1},
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_of(module: nn.Module, side: int) -> tuple[Graph, Node]:
    graph = capture(nn.Sequential(module, nn.Flatten()).double(), (side, side))
    return graph, next(node for node in graph.nodes if node.op == "conv")


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_times_weights_are_the_output_at_the_places(geometry: str) -> None:
    graph, layer = layer_of(nn.Conv2d(3, 4, bias=False, **GEOMETRIES[geometry]), 11)
    x, weight = random(5, 3, 11, 11), graph.params[layer.params["weight"]]
    for per_image in (6, 1000):
        places = choose_places(layer.shape, 5, per_image)
        rows = patches_at(layer, tuple(weight.shape[2:]), x, places)
        want = outputs_at(run(graph, {graph.input.name: x}, [layer.name])[layer.name], places)
        assert torch.allclose(rows @ weight.flatten(1).T, want)


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


class Redundant(nn.Module):
    """Hidden channels 4 to 7 are sums of channels 0 to 3: half of them can be done without."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=1)
        self.c = nn.Linear(6, 5)
        with torch.no_grad():
            mix = random(4, 4, seed=9).float()
            self.a.weight[4:] = torch.einsum("ij,jckl->ickl", mix, self.a.weight[:4])
            self.a.bias[4:] = mix @ self.a.bias[:4]

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)).relu().mean((2, 3)))


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


@pytest.mark.parametrize(
    ("activation", "constant"),
    [
        (nn.ReLU(), [(-9, 0)]),
        (nn.ReLU6(), [(-9, 0), (6, 9)]),
        (nn.Hardtanh(), [(-9, -1), (1, 9)]),
        (nn.Hardtanh(-2, 1), [(-9, -2), (1, 9)]),
        (nn.Hardtanh(0, 1), [(-9, 0), (1, 9)]),
        (nn.Hardtanh(-1, 2), [(-9, -1), (2, 9)]),
        (nn.Hardswish(), [(-9, -3)]),
        (nn.Hardsigmoid(), [(-9, -3), (3, 9)]),
        (nn.GELU(), []),
    ],
)
def test_it_is_known_where_an_activation_is_constant(
    activation: nn.Module, constant: list[tuple[float, float]]
) -> None:
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Flatten()), (2, 2))
    node = next(node for node in graph.nodes if node.op == "act")
    parts = [(max(low, -9.0), min(high, 9.0)) for low, high in flat_parts([node])]
    assert parts == constant
    for low, high in parts:
        y = activation(torch.linspace(low, high, 50))
        assert float(y.max() - y.min()) == 0.0
        for end in {low, high} - {-9.0, 9.0}:
            assert float(activation(torch.tensor([end - 0.1, end + 0.1])).diff().abs()) > 0.001


def test_what_others_can_say_goes_without_loss() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Redundant().double().eval()
    graph = capture(module, (12, 12))
    channels, x, unseen = analyse(graph), random(40, 3, 12, 12), random(5, 3, 12, 12, seed=1)
    gone = np.zeros(channels.count, dtype=bool)
    gone[channels.of["a"][4:]] = True
    plan = channel_plan(graph, channels, Cut(gone), None)
    teacher = teach(graph, graph, x, max_bytes=10**9)
    fitted = compensate(graph, channels, plan, teacher, x)
    bare, made_up = (
        deviation(run(g, {g.input.name: unseen}, masks=plan.keep)[g.output], scores(graph, unseen))
        for g in (graph, fitted)
    )
    # Borders pad with zeros, where the sums differ by the bias: not exact, but close.
    assert made_up < 0.02 * bare


Case = tuple[Graph, Channels, Tensor]


@functools.cache
def captured(name: str) -> Case:
    graph = capture(build(name), (SIDE, SIDE))
    return graph, analyse(graph), random(12, 3, SIDE, SIDE, seed=1)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structure_is_refitted_or_left_alone(name: str) -> None:
    """Masked equals compact with the new weights; nothing removed changes nothing."""
    graph, channels, x = captured(name)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    same = compensate(graph, channels, Plan(), teacher, x)
    assert deviation(scores(same, x), scores(graph, x)) < 1e-6
    for style in ("channels", "partial"):
        plan = random_plan(graph, channels, style, 0)
        fitted = compensate(graph, channels, plan, teacher, x, max_bytes=10**6)
        assert all(bool(torch.isfinite(p).all()) for p in fitted.params.values())
        check_plan(fitted, analyse(fitted), plan, x)


@pytest.mark.parametrize("separable", [False, True], ids=["thin", "separable"])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structure_is_split_or_left_alone(name: str, separable: bool) -> None:
    """Split, too, masked equals compact, which costs what the plan says."""
    graph, channels, x = captured(name)
    evidence = measure_evidence(graph, channels, Mission((0, 1), ("a", "b")), x)
    plan = random_plan(graph, channels, "channels", 0)
    gone = removed_classes(channels, plan)
    splits = {}
    for spectrum in spectra(graph, channels, evidence):
        if spectrum.separable == separable:
            read = graph[spectrum.layer].inputs[0]
            left = [int((~gone[channels.of[name]]).sum()) for name in (spectrum.layer, read)]
            rank = min(max(1, len(spectrum.values) // 3), *left)
            splits[spectrum.layer] = Split(rank, separable)
    plan = replace(plan, splits=splits)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    fitted = compensate(graph, channels, plan, teacher, x, needs=evidence.needs)
    small = check_plan(fitted, analyse(fitted), plan, x)
    for layer, how in splits.items():
        assert small[f"{layer}:basis"].shape[0] == how.rank


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
    values, basis, back = output_basis(need, rows.T @ rows / len(rows))

    def felt(error: Tensor) -> float:
        return float(torch.einsum("ri,ij,rj->r", error, need, error).mean())

    for rank in range(6):
        projected = rows @ (back[:, :rank] @ basis[:rank]).T
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


@pytest.mark.parametrize("separable", [False, True], ids=["thin", "separable"])
def test_split_layers_are_fitted_better_than_their_weights_are_truncated(separable: bool) -> None:
    graph, channels, x = captured("chain")
    evidence = measure_evidence(graph, channels, Mission((0, 1), ("a", "b")), x)
    splits = {
        s.layer: Split(3, separable)
        for s in spectra(graph, channels, evidence)
        if s.separable == separable
    }
    assert splits
    plan = Plan(outputs=(0, 1), splits=splits)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    fitted = compensate(graph, channels, plan, teacher, x, needs=evidence.needs)
    want, unseen = scores(graph, y := random(40, 3, SIDE, SIDE, seed=5))[:, :2], y
    fitted_error, cut_error = (
        (scores(compact(g, channels, plan), unseen) - want).square().mean() for g in (fitted, graph)
    )
    assert fitted_error < 0.7 * cut_error


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise", "batch norm"])
def test_refitting_brings_scores_nearer(name: str) -> None:
    graph, channels, x = captured(name)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    plan = random_plan(graph, channels, "channels", 1)
    want = scores(graph, x)
    bare = run(graph, {graph.input.name: x}, masks=plan.keep)[graph.output]
    fitted = compensate(graph, channels, plan, teacher, x)
    now = run(fitted, {fitted.input.name: x}, masks=plan.keep)[fitted.output]
    assert (now - want).square().mean() < 0.5 * (bare - want).square().mean()


def test_little_memory_fits_on_fewer_images() -> None:
    """The bound changes how many images a layer sees, not whether it works."""
    graph, channels, x = captured("residual")
    x = torch.cat([x] * 6)  # three chunks
    teacher = teach(graph, graph, x, max_bytes=10**7)
    plan = random_plan(graph, channels, "channels", 1)
    tight, wide = (
        compensate(graph, channels, plan, teacher, x, max_bytes=limit) for limit in (1, 10**9)
    )
    masked = [run(g, {g.input.name: x}, masks=plan.keep)[g.output] for g in (tight, wide)]
    assert all(bool(torch.isfinite(y).all()) for y in masked)
    assert not torch.equal(*masked)
