"""Replay from a site equals running the whole network with the same masks."""

import pytest
import torch
from torch import Tensor

from architectures import SIDE, captured
from distillnet.graph import Graph, Node, images_at_once, run
from distillnet.graph.replay import Replay, masked_scores

NETS = ("residual through concat", "pre-activation, dense", "channel shuffle", "gate and bias")


def _setting(name: str) -> tuple[Graph, tuple[str, ...], Tensor]:
    _, graph, channels = captured(name)
    x = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)).double()
    return graph, channels.sites, x


def _keep(graph: Graph, site: str, seed: int) -> Tensor:
    return torch.rand(graph[site].shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def _reference(graph: Graph, x: Tensor, keep: dict[str, Tensor]) -> Tensor:
    return run(graph, {graph.input.name: x}, masks=keep)[graph.output]


@pytest.mark.parametrize("name", NETS)
def test_every_site(name: str) -> None:
    graph, sites, x = _setting(name)
    replay = Replay(graph, x, batch_size=2)
    for i, site in enumerate(sites):
        replay.go_to([site])
        for seed in range(2):
            keep = {site: _keep(graph, site, 10 * i + seed)}
            torch.testing.assert_close(replay.scores(keep), _reference(graph, x, keep))
        torch.testing.assert_close(replay.scores({}), _reference(graph, x, {}))


@pytest.mark.parametrize("name", NETS)
def test_sites_that_are_masked_together(name: str) -> None:
    graph, sites, x = _setting(name)
    replay = Replay(graph, x, batch_size=3)
    for i in range(len(sites) - 1):
        for together in ([sites[i], sites[-1]], [sites[-1], sites[i], sites[i + 1]]):
            replay.go_to(together)
            keep = {site: _keep(graph, site, i) for site in together}
            torch.testing.assert_close(replay.scores(keep), _reference(graph, x, keep))
            first = {sites[i]: keep[sites[i]]}
            torch.testing.assert_close(replay.scores(first), _reference(graph, x, first))


def test_there_is_no_way_back() -> None:
    graph, sites, x = _setting(NETS[0])
    replay = Replay(graph, x)
    replay.go_to([sites[1]])
    with pytest.raises(ValueError, match="comes before"):
        replay.go_to([sites[0]])


def test_masked_scores_do_not_depend_on_the_batch() -> None:
    graph, sites, x = _setting(NETS[0])
    keep = {site: _keep(graph, site, i) for i, site in enumerate(sites)}
    for size in (1, 2, 32):
        got = masked_scores(graph, x, keep, batch_size=size)
        torch.testing.assert_close(got, _reference(graph, x, keep))


@pytest.mark.parametrize(
    ("shape", "on_gpu"),
    [((64, 112, 112), 167), ((64, 224, 224), 41), ((10,), 256), ((1, 2**14, 2**14), 32)],
)
def test_a_gpu_is_given_more_images_at_once_as_far_as_memory_allows(shape, on_gpu: int) -> None:
    graph = Graph((Node("x", "input", (), shape),), {}, "x")
    assert images_at_once(graph, torch.device("cpu"), 32) == 32
    assert images_at_once(graph, torch.device("cuda"), 32) == on_gpu
