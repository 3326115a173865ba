"""What is recorded at one place tells what the network answers, and a refit from it holds."""

import pytest
import torch

from architectures import ARCHITECTURES, SIDE, captured
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.cut.thin import Split
from distillnet.graph import Graph, run
from distillnet.missions.following import follow
from distillnet.missions.records import Record, record_at, records_of
from distillnet.missions.rows import places_of
from distillnet.refit.compensation import with_biases
from distillnet.refit.teacher import refittable


def _rows(graph: Graph, x: torch.Tensor, per_image: int = 3) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = {graph.input.name: x}
    run(graph, {graph.input.name: x}, observe=values.__setitem__)
    _, at = places_of([bytes([i]) for i in range(len(x))], per_image)
    return {r.name: record_at(graph, r, values[r.source], at) for r in records_of(graph)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_samples_of_an_uncut_network_tell_its_scores(name: str) -> None:
    _, graph, channels = captured(name)
    x = torch.randn(4, *graph.input.shape, dtype=torch.float64)
    rows = _rows(graph, x)
    done = follow(graph, channels, Plan(), lambda record: rows[record.name], {})
    scores = run(graph, {graph.input.name: x})[graph.output].repeat_interleave(3, 0)
    torch.testing.assert_close(done.before_rk, scores)
    torch.testing.assert_close(done.after_rk, scores)
    # Nothing was to be made up for, so no weight has changed.
    for param, value in with_biases(graph).params.items():
        torch.testing.assert_close(done.graph.params[param], value)


def test_no_record_shows_the_image() -> None:
    for name in ARCHITECTURES:
        _, graph, _ = captured(name)
        for record in records_of(graph):
            assert record.source != graph.input.name


def test_what_was_cut_is_made_up_for_where_one_place_tells_all() -> None:
    """Of 1 x 1 layers the samples tell all: the refit is as good as one on the images."""
    torch.manual_seed(0)
    from torch import nn

    from distillnet.graph.capture import capture
    from distillnet.graph.channels import analyse

    net = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 6, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    graph = capture(net.eval(), (SIDE, SIDE))
    channels = analyse(graph)
    x = torch.randn(200, *graph.input.shape)
    rows = _rows(graph, x, 10)
    layers = [layer.name for layer in refittable(graph)]
    keep = {}
    for layer in layers[:2]:
        site = channels.site_of[layer]
        bits = torch.ones(graph[site].shape, dtype=torch.bool)
        bits[10:] = False
        keep[site] = bits
    plan = Plan(keep, splits={layers[2]: Split(4)})
    needs = {name: torch.eye(graph[name].shape[0]) for name in layers}

    def error(changed: Graph) -> float:
        y = run(graph, {graph.input.name: x})[graph.output]
        now = run(compact(changed, channels, plan), {graph.input.name: x})[graph.output]
        return float((now - y).square().mean() / y.var(0).mean())

    def recorded(record: Record) -> torch.Tensor:
        return rows[record.name]

    followed = follow(graph, channels, plan, recorded, needs)
    assert error(followed.graph) < 0.5 * error(with_biases(graph))
    # What the samples say of the new network, at their own places, is what it is there.
    harm = (followed.after_rk - followed.before_rk).square().mean()
    assert harm < followed.before_rk.var(0).mean()
