"""Pruned, distilled, quantised: what each step leaves, and what comes of their order."""

import numpy as np
import pytest
import torch

from colours import HOW, MISSION
from distillnet.errors import InputError
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture_model
from distillnet.images import load_all
from distillnet.job.options import Options
from distillnet.job.partition import Images
from distillnet.models import Model, load_model
from distillnet.refit.compensation import with_biases
from distillnet.refit.teacher import refittable
from distillnet.reproduce.composition import compose, pruned, quantised
from distillnet.search import Budget


@pytest.fixture(scope="module")
def graph(model: Model) -> Graph:
    return with_biases(capture_model(model))


def _weights(graph: Graph) -> dict[str, torch.Tensor]:
    return {n.params["weight"]: graph.params[n.params["weight"]] for n in refittable(graph)}


def _scores(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return run(graph, {graph.input.name: x})[graph.output]


def test_the_least_weights_of_all_layers_go(graph: Graph) -> None:
    before, after = _weights(graph), _weights(pruned(graph, 0.6))
    sizes = torch.cat([w.abs().flatten() for w in before.values()])
    bound = sizes.sort().values[round(0.6 * len(sizes))]
    for name, weight in before.items():
        assert torch.equal(after[name], torch.where(weight.abs() >= bound, weight, 0.0))


def test_what_stays_is_refitted_and_what_went_stays_away(
    model: Model, graph: Graph, images: Images
) -> None:
    x = load_all(images.statistics, model.preprocessing).x_nchw
    others = load_all(images.val, model.preprocessing).x_nchw
    plain, refitted = pruned(graph, 0.6), pruned(graph, 0.6, x)
    for name, weight in _weights(plain).items():
        assert torch.equal(_weights(refitted)[name] == 0, weight == 0)
    wanted = _scores(graph, others)
    errors = [(_scores(g, others) - wanted).square().mean() for g in (plain, refitted)]
    assert errors[1] < 0.2 * errors[0]


def test_eight_bits_are_near_and_keep_zeros(graph: Graph) -> None:
    sparse = pruned(graph, 0.6)
    small, shared = quantised(sparse)
    for name, weight in _weights(sparse).items():
        rows = weight.reshape(len(weight), -1)
        found = _weights(small)[name].reshape(rows.shape)
        assert np.abs(shared[name].levels).max() <= 127
        # Steps are of half octaves, so that a largest weight is 89 of them or more.
        assert ((found - rows).abs().amax(1) <= rows.abs().amax(1) / 89 / 2 + 1e-9).all()
        assert (found[rows == 0] == 0).all()


def test_a_distilled_network_that_is_pruned_keeps_fewer_weights(
    model: Model, images: Images
) -> None:
    """Distilling refits what is left, so what was pruned before comes back."""
    options = Options(budget=Budget(target_macs=1.5), optimise="macs", keep_input_size=True)
    routes = ((), ("prune",), ("distill",), ("prune", "distill"), ("distill", "prune"))
    rows = dict(zip(routes, compose(model, MISSION, images, options, routes=routes), strict=True))
    assert rows[()].kept == 1
    assert rows["prune",].kept == pytest.approx(0.5, abs=0.01)
    assert rows["distill", "prune"].kept == pytest.approx(0.5 * rows["distill",].kept, abs=0.01)
    assert rows["prune", "distill"].kept > 0.65 * rows["distill",].kept
    assert rows["distill", "prune"].bytes < rows["distill",].bytes < rows[()].bytes
    for route in routes:
        assert rows[route].macs <= rows[()].macs / (1.5 if "distill" in route else 1)


def test_folded_batch_norms_are_refused(images: Images) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    )  # fmt: skip
    with pytest.raises(InputError, match="folded"):
        compose(load_model(module, preprocessing=HOW), MISSION, images, Options())
