"""What the surgeon knows and charges: by hand, and by least squares from scratch."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillnet.cut.thin import matrix
from distillnet.graph import run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit.basis import column_filters
from distillnet.refit.samples import choose_places, patches_at
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import RIDGE, elimination_orders
from distillnet.search.splits import spectra
from small_network import MISSION, Small, random


class Beside(nn.Module):
    """A layer that reads the image, which stays, beside channels that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 20, 3, padding=1)
        self.back = nn.Conv2d(23, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.inner(x).relu(), x], 1)
        return self.fc(self.back(y).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", [Small, Beside])
def test_the_damage_is_that_of_the_refitted_rest(kind: type[nn.Module]) -> None:
    """Against least squares from scratch, without updates: ridge, Schur complement by hand."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        graph = capture(kind().eval(), (16, 16))
    channels = analyse(graph)
    evidence = measure_evidence(graph, channels, MISSION, random(80, 3, 16, 16, seed=2))
    orders = elimination_orders(graph, channels, evidence)
    order = next(o for o in orders if set(o.classes) <= set(channels.of["inner"]))
    view = next(v for v in evidence.views if v.layers == ("back",))
    h = view.covariance.double()
    h = h + RIDGE * h.diagonal().mean() * torch.eye(len(h))
    weight = graph.params["back.weight"].flatten(1).double()
    of_column = np.repeat(channels.of[view.source], 9)
    steps = [1, 5, 12, -1]
    for count, damage in zip(order.counts[steps], order.damages[steps], strict=True):
        gone = torch.from_numpy(np.isin(of_column, order.classes[:count]))
        rest = ~gone
        refit = torch.linalg.solve(h[rest][:, rest], h[rest][:, gone] @ weight[:, gone].T)
        lost = weight[:, gone] @ h[gone][:, gone] @ weight[:, gone].T
        lost -= refit.T @ h[rest][:, gone] @ weight[:, gone].T
        assert damage == pytest.approx(
            float((evidence.needs["back"].double() * lost).sum()), rel=1e-4
        )


def test_covariances_and_needs_are_those_of_all_places(module: nn.Module) -> None:
    """At a size where every place is taken: by hand, and by finite differences of the scores."""
    graph = capture(module.double(), (4, 4))
    channels, x = analyse(graph), random(6, 3, 4, 4, seed=5).double()
    evidence = measure_evidence(graph, channels, MISSION, x)
    module.float()
    view = next(v for v in evidence.views if v.source == "stem:relu" and len(v.layers) == 1)
    layer = graph[view.layers[0]]
    values = run(graph, {graph.input.name: x}, [view.source])[view.source]
    kernel = tuple(graph.params[layer.params["weight"]].shape[2:])
    rows = patches_at(layer, kernel, values, choose_places(layer.shape, 6, 1000))
    want = torch.cov(rows.T, correction=0)
    assert torch.allclose(view.covariance.double(), want, atol=1e-5)

    # The last layer's need is exact whatever the sign: scores are linear in it.
    cls = list(MISSION.indices)
    centred = graph.params["fc.weight"][cls] - graph.params["fc.weight"][cls].mean(0)
    pooled = evidence.needs["last"]
    active = run(graph, {graph.input.name: x}, ["last"])["last"] > 0
    # E over the random sign of |gradient|^2, summed over channels and places.
    expected = (centred.square().sum(0) / 16**2 * active.double().mean(0).sum((1, 2))).sum()
    assert pooled.trace().item() == pytest.approx(float(expected), rel=0.5)


@pytest.mark.parametrize("n", [8, 40])
@pytest.mark.parametrize("kernel", [3, 7])
def test_grey_images_and_plain_pages_have_spectra(kernel: int, n: int) -> None:
    """Three equal channels, one tone almost everywhere: covariances of next to no rank."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, kernel, padding=kernel // 2), nn.ReLU(), nn.Conv2d(32, 48, 3)]
    module = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.append(nn.Linear(48, 6))
    graph = capture(module, (24, 24))
    x = torch.full((n, 1, 24, 24), 2.64)
    x[:, :, 8:14, 9:15] = random(n, 1, 6, 6)
    x = (x * 1.01 + 0.02).expand(-1, 3, -1, -1).contiguous()
    evidence = measure_evidence(graph, channels := analyse(graph), MISSION, x)
    for view in evidence.views:
        least = torch.linalg.eigvalsh(view.covariance)[0]
        assert least > -1e-9 * view.covariance.diagonal().mean()
    for spectrum in spectra(graph, channels, evidence):
        assert np.isfinite(spectrum.values).all()
        assert (spectrum.values >= 0).all()


def test_every_removable_class_that_is_read_is_in_one_order(known) -> None:
    _, channels, _, orders = known
    listed = np.concatenate([order.classes for order in orders])
    assert len(listed) == len(set(listed.tolist()))
    free = set(range(channels.count)) - set(channels.pinned)
    assert set(listed.tolist()) <= free
    assert len(free) - len(listed) == len(orders)  # each leaves one out
    for order in orders:
        assert (np.diff(order.damages) >= 0).all()


def test_what_column_filters_add_is_what_the_best_combination_leaves(known) -> None:
    """By least squares on the evidence's own covariances, with the filters of ``basis``."""
    graph, channels, evidence, _ = known
    values = next(s.values for s in spectra(graph, channels, evidence)
                  if s.layer == "inner" and s.separable)  # fmt: skip
    covariance = next(v.covariance for v in evidence.views if "inner" in v.layers).double()
    weight = graph.params[graph["inner"].params["weight"]].double()
    need = evidence.needs["inner"].double()
    column = sum(covariance.reshape(36, 3, 36, 3)[:, j, :, j] for j in range(3)) / 3
    filters, _ = column_filters(matrix(weight, separable=True), need, column)
    for rank in (0, 1, 5, 20, 36):
        seen = torch.einsum("ra,jk->rjak", filters[:rank], torch.eye(3).double()).reshape(-1, 108)
        gram, cross = seen @ covariance @ seen.T, seen @ covariance @ weight.flatten(1).T
        left = weight.flatten(1) - torch.linalg.lstsq(gram, cross).solution.T @ seen
        damage = (need * (left @ covariance @ left.T)).sum().item()
        assert values[rank:].sum() == pytest.approx(damage, rel=1e-3, abs=1e-6 * values.sum())


def test_another_order_is_charged_the_same_way(known) -> None:
    """Any other order that ends with the same channels has done the same damage."""
    graph, channels, evidence, orders = known
    surgeon = next(o for o in orders if set(o.classes) <= set(channels.of["inner"]))
    importance = np.zeros(channels.count)
    importance[surgeon.classes] = np.arange(len(surgeon.classes))[::-1] + 1  # the other way round
    left_out = (set(channels.of["inner"]) - set(surgeon.classes)).pop()
    importance[left_out] = len(surgeon.classes) + 1
    others = elimination_orders(graph, channels, evidence, importance)
    other = next(o for o in others if set(o.classes) <= set(channels.of["inner"]))
    assert set(other.classes) == set(surgeon.classes)
    assert other.damages[-1] == pytest.approx(surgeon.damages[-1], rel=1e-3)
    assert other.damages[len(other.damages) // 2] >= surgeon.damages[len(surgeon.damages) // 2]
