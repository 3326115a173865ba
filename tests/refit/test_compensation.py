"""Refitting: right on every structure, or out of the way, and nearer to the original."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from architectures import ARCHITECTURES, SIDE
from cases import random, with_images
from distillnet.classes import Mission
from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import compact
from distillnet.cut.thin import Split
from distillnet.graph import run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit.compensation import compensate, flat_parts
from distillnet.refit.teacher import bytes_to_teach, teach, teach_all
from distillnet.search.allocation import Cut, channel_plan
from distillnet.search.evidence import measure_evidence
from distillnet.search.splits import spectra
from plans import check_plan, deviation, random_plan, scores


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


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structure_is_refitted_or_left_alone(name: str) -> None:
    """Masked equals compact with the new weights; nothing removed changes nothing."""
    graph, channels, x = with_images(name)
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
    graph, channels, x = with_images(name)
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
def test_split_layers_are_fitted_better_than_their_weights_are_truncated(separable: bool) -> None:
    graph, channels, x = with_images("chain")
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
    graph, channels, x = with_images(name)
    teacher = teach(graph, graph, x, max_bytes=10**7)
    plan = random_plan(graph, channels, "channels", 1)
    want = scores(graph, x)
    bare = run(graph, {graph.input.name: x}, masks=plan.keep)[graph.output]
    fitted = compensate(graph, channels, plan, teacher, x)
    now = run(fitted, {fitted.input.name: x}, masks=plan.keep)[fitted.output]
    assert (now - want).square().mean() < 0.5 * (bare - want).square().mean()


def test_little_memory_fits_on_fewer_images() -> None:
    """The bound changes how many images a layer sees, not whether it works."""
    graph, channels, x = with_images("residual")
    x = torch.cat([x] * 6)  # three chunks
    teacher = teach(graph, graph, x, max_bytes=10**7)
    plan = random_plan(graph, channels, "channels", 1)
    tight, wide = (
        compensate(graph, channels, plan, teacher, x, max_bytes=limit) for limit in (1, 10**9)
    )
    masked = [run(g, {g.input.name: x}, masks=plan.keep)[g.output] for g in (tight, wide)]
    assert all(bool(torch.isfinite(y).all()) for y in masked)
    assert not torch.equal(*masked)


def test_one_pass_teaches_all_sizes_what_each_pass_would() -> None:
    module, x = Redundant().double().eval(), random(8, 3, 16, 16, seed=3)
    graphs = {(side, side): capture(module, (side, side)) for side in (16, 12, 8)}
    together = teach_all(graphs[16, 16], graphs, x, max_bytes=10**7)
    for size, graph in graphs.items():
        alone = teach(graphs[16, 16], graph, x, max_bytes=10**7)
        for layer, rows in alone.rows.items():
            assert torch.equal(rows, together[size].rows[layer])
            assert torch.equal(alone.places[layer], together[size].places[layer])
        numbers = sum(rows.numel() for rows in alone.rows.values())
        width = 8 if size == (16, 16) else 2  # float64, bfloat16
        assert bytes_to_teach(graphs[16, 16], graph, 8, 10**7) == width * numbers
