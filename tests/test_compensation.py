"""Sampled places, the teacher, and refitting: right on every structure, or out of the way."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from architectures import ARCHITECTURES, SIDE, build
from distillnet.basis import output_basis
from distillnet.capture import capture
from distillnet.channels import Channels, analyse
from distillnet.classes import Mission
from distillnet.compensation import Thin, compensate, fit_affine, fit_thin
from distillnet.cost import cost
from distillnet.graph import Graph, run
from distillnet.operators import Node
from distillnet.plan import Plan, removed_classes
from distillnet.samples import choose_places, outputs_at, patches_at, same_places
from distillnet.search.allocation import Cut, channel_plan
from distillnet.search.evidence import measure_evidence
from distillnet.search.ranks import spectra
from distillnet.surgery import compact, split
from distillnet.teacher import teach
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
    thin = Thin(torch.eye(6).double(), rank=3)
    filters, back, offset = fit_thin(x, aims, weight, bias, thin)
    assert (filters.shape, back.shape) == ((3, 9), (6, 3))
    centred, wanted = x - x.mean(0), aims - aims.mean(0)
    fitted = centred @ torch.linalg.lstsq(centred, wanted).solution
    u, values, v = torch.linalg.svd(fitted, full_matrices=False)
    best = u[:, :3] * values[:3] @ v[:3] + aims.mean(0)
    assert torch.allclose(x @ (back @ filters).T + offset, best, atol=2e-3)
    whole = fit_thin(x, aims, weight, bias, Thin(torch.eye(6).double(), rank=6))
    affine = fit_affine(x, aims, weight, bias)
    assert torch.allclose(whole[1] @ whole[0], affine[0], atol=1e-9)
    assert torch.allclose(whole[2], affine[1], atol=1e-9)


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


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structure_is_split_or_left_alone(name: str) -> None:
    """With ranks, too, masked equals compact, which costs what the plan says."""
    graph, channels, x = captured(name)
    evidence = measure_evidence(graph, channels, Mission((0, 1), ("a", "b")), x)
    ranks = {s.layer: max(1, len(s.values) // 3) for s in spectra(graph, channels, evidence)}
    plan = random_plan(graph, channels, "channels", 0)
    left = removed_classes(channels, plan)
    ranks = {name: min(r, int((~left[channels.of[name]]).sum())) for name, r in ranks.items()}
    plan = replace(plan, ranks=ranks)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    fitted = compensate(graph, channels, plan, teacher, x, needs=evidence.needs)
    small = check_plan(fitted, analyse(fitted), plan, x)
    for layer, rank in ranks.items():
        assert small[f"{layer}:basis"].shape[0] == rank


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_layer_of_low_rank_is_split_exactly(geometry: str) -> None:
    graph, layer = layer_of(nn.Conv2d(3, 8, **GEOMETRIES[geometry]), 11)
    name = layer.params["weight"]
    weight, x = graph.params[name], random(3, 3, 11, 11)
    low = (random(8, 2, seed=1) @ random(2, weight[0].numel(), seed=2)).reshape(weight.shape)
    graph = replace(graph, params={**graph.params, name: low})
    small = split(graph, layer.name, 2)
    assert deviation(scores(small, x), scores(graph, x)) < 1e-12
    assert cost(small, analyse(small)).params == 2 * weight[0].numel() + 2 * 8 + 8
    # One dimension less is the nearest there is, by numpy's decomposition.
    values = np.linalg.svd(low.flatten(1).numpy(), compute_uv=False)
    thin = split(graph, layer.name, 1).params
    product = thin[f"{name}:combination"].flatten(1) @ thin[f"{name}:basis"].flatten(1)
    missing = torch.linalg.norm(product - low.flatten(1)).item()
    assert missing == pytest.approx(values[1], rel=1e-9)


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


def test_split_layers_are_fitted_better_than_their_weights_are_truncated() -> None:
    graph, channels, x = captured("chain")
    evidence = measure_evidence(graph, channels, Mission((0, 1), ("a", "b")), x)
    ranks = {s.layer: 3 for s in spectra(graph, channels, evidence)}
    plan = Plan(outputs=(0, 1), ranks=ranks)
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
