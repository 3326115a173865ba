"""What changed weights do to scores: beside the change itself, by the network's own answers."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from architectures import ARCHITECTURES, SIDE, captured
from distillnet.classes import Mission
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit.teacher import refittable
from distillnet.search.effects import effects, put_right
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import elimination_orders
from distillnet.search.splits import spectra
from small_network import MISSION, random

_TINY = 1e-4


def changed_scores(
    graph: Graph, mission: Mission, x: Tensor, change: Mapping[str, Tensor]
) -> Tensor:
    """How the mission's centred scores (N, K) change, each layer's mean output kept, per change."""

    def centred(params: Mapping[str, Tensor]) -> Tensor:
        whole = Graph(graph.nodes, params, graph.output)
        scores = run(whole, {graph.input.name: x})[graph.output][:, list(mission.indices)]
        return scores - scores.mean(1, keepdim=True)

    total = torch.zeros(())
    for name, by in change.items():
        node = graph[name]
        weight, bias = (graph.params[node.params[role]] for role in ("weight", "bias"))
        moved = {node.params["weight"]: weight + _TINY * by.reshape(weight.shape).to(weight)}
        now, then = (
            run(Graph(graph.nodes, {**graph.params, **p}, graph.output),
                {graph.input.name: x}, [name])[name] for p in (moved, {})
        )  # fmt: skip
        drift = (now - then).transpose(0, 1).flatten(1).mean(1)
        moved[node.params["bias"]] = bias - drift
        total = total + (centred({**graph.params, **moved}) - centred(graph.params)) / _TINY
    return total


@pytest.mark.parametrize("layers", [("inner",), ("last", "side"), ("fc",)])
def test_an_effect_is_the_change_of_the_scores(module, known, layers: tuple[str, ...]) -> None:
    """In the mean over random signs of the scores, by small steps of the weights themselves."""
    graph, x = known[0].to(torch.float64), random(24, 3, 16, 16, seed=9).double()
    change = {
        name: random(*graph.params[graph[name].params["weight"]].flatten(1).shape, seed=i).double()
        for i, name in enumerate(layers)
    }
    want = changed_scores(graph, MISSION, x, change).square().sum(1).mean().item()
    drawn = [effects(graph, MISSION, x, [change], seed)[0] for seed in range(60)]
    assert np.mean(drawn) == pytest.approx(want, rel=4 * np.std(drawn) / want / 60**0.5 + 1e-3)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structure_keeps_its_orders_and_ranks(name: str) -> None:
    """Damages stay what sums up: never less with more that is gone; what goes first stays first."""
    _, graph, channels = captured(name)
    x, mission = random(6, 3, SIDE, SIDE).double(), Mission((1, 4), ("b", "e"))
    evidence = measure_evidence(graph, channels, mission, x)
    orders = elimination_orders(graph, channels, evidence)
    known = spectra(graph, channels, evidence)
    now, ranks = put_right(graph, channels, mission, x, evidence, orders, known)
    assert [o.classes.tolist() for o in now] == [o.classes.tolist() for o in orders]
    assert [(s.layer, s.separable) for s in ranks] == [(s.layer, s.separable) for s in known]
    for order in now:
        assert np.isfinite(order.damages).all()
        assert (np.diff(order.damages) >= 0).all()
    for spectrum in ranks:
        assert np.isfinite(spectrum.values).all()
        assert (spectrum.values >= 0).all()


def test_errors_that_are_alike_all_over_an_image_do_more(known) -> None:
    """A network of one layer and a mean over the map, of images that are plain: by hand.

    A direction that is left out is missing at all P places alike, so it does P times what P places
    of their own would do.
    """
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        graph = capture(net.eval(), (8, 8))
    channels, mission = analyse(graph), Mission((0, 1, 2, 3), tuple("abcd"))
    plain = random(200, 3, 1, 1, seed=4).expand(-1, -1, 8, 8).contiguous()
    evidence = measure_evidence(graph, channels, mission, plain)
    (layer,) = (node.name for node in refittable(graph))
    covariance = evidence.views[0].covariance.double()
    change = random(4, 3, seed=5)
    taken = (
        change.T.double() @ evidence.needs[layer].double() @ change.double() * covariance
    ).sum()
    (felt,) = effects(graph, mission, plain, [{layer: change}], seed=1)
    assert felt == pytest.approx(64 * float(taken), rel=0.3)
