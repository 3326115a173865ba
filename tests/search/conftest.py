"""The small network, its labels and its evidence."""

import pytest
import torch
from torch import Tensor, nn

from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.search.evidence import Evidence, measure_evidence
from distillnet.search.orders import Order, elimination_orders
from small_network import MISSION, Small, random, sized


@pytest.fixture(scope="session")
def module() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Small().eval()
        scores = net(random(64, 3, 16, 16))[:, list(MISSION.indices)]
        net.fc.bias.data[list(MISSION.indices)] -= scores.mean(0).detach()
    return net


@pytest.fixture(scope="session")
def labels(module: nn.Module) -> Tensor:
    """What the network itself says of the search images: it is right everywhere."""
    with torch.inference_mode():
        return module(random(150, 3, 16, 16, seed=3))[:, list(MISSION.indices)].argmax(1)


@pytest.fixture(scope="session")
def known(module: nn.Module) -> tuple[Graph, Channels, Evidence, tuple[Order, ...]]:
    here = sized(module)((16, 16))
    evidence = measure_evidence(here.graph, here.channels, MISSION, here.x_statistics)
    return (
        here.graph,
        here.channels,
        evidence,
        elimination_orders(here.graph, here.channels, evidence),
    )
