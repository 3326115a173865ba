"""The central property: for every structure and random plans, compact equals mask."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from architectures import ARCHITECTURES, SIDE, build, captured
from distillnet.cut.plan import Plan, complete_only, removed_classes
from distillnet.cut.surgery import compact, mask
from distillnet.graph import Graph, GraphModule
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse, groups
from plans import STYLES, check_plan, deviation, random_plan, scores

RECAPTURED = (
    "batch norm", "channel shuffle", "channels-last linear", "convolution as classifier",
    "gate and bias", "masked before", "padding", "pools", "residual", "two heads",
)  # fmt: skip

Case = tuple[nn.Module, Graph, Channels, Tensor]


def with_images(name: str) -> Case:
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    return *captured(name), x


@pytest.fixture(params=sorted(ARCHITECTURES))
def case(request: pytest.FixtureRequest) -> Case:
    return with_images(request.param)


def test_graph_equals_module(case: Case) -> None:
    module, graph, _, x = case
    with torch.no_grad():
        assert deviation(scores(graph, x), module(x)) < 1e-9


@pytest.mark.parametrize("style", STYLES)
def test_compact_equals_mask(case: Case, style: str) -> None:
    _, graph, channels, x = case
    for seed in range(4):
        check_plan(graph, channels, random_plan(graph, channels, style, seed), x)


def test_compact_twice(case: Case) -> None:
    """A compact network, masks included, is a network like any other."""
    _, graph, channels, x = case
    small = check_plan(graph, channels, random_plan(graph, channels, "partial", 5), x)
    classes = analyse(small)
    check_plan(small, classes, random_plan(small, classes, "partial", 6), x)


def test_complete_only_removes_the_same_channels(case: Case) -> None:
    _, graph, channels, x = case
    plan = random_plan(graph, channels, "partial", 7)
    whole = complete_only(channels, plan)
    small = check_plan(graph, channels, whole, x)
    assert (removed_classes(channels, whole) == removed_classes(channels, plan)).all()
    assert not any(n.op == "mask" and n.name not in {m.name for m in graph.nodes}
                   for n in small.nodes)  # fmt: skip


@pytest.mark.parametrize("name", RECAPTURED)
def test_recapture(name: str) -> None:
    """The compact network as a module, captured again, is the same network."""
    _, graph, channels, x = with_images(name)
    small = compact(graph, channels, random_plan(graph, channels, "borders", 8))
    again = capture(GraphModule(small), (SIDE, SIDE))
    assert deviation(scores(again, x), scores(small, x)) < 1e-9
    classes = analyse(again)
    check_plan(again, classes, random_plan(again, classes, "partial", 9), x)


def test_every_structure_gives_something_to_remove(case: Case) -> None:
    """So that the comparisons above are not of networks that nothing was removed from."""
    _, graph, channels, _ = case
    assert sum(group.removable for group in groups(graph, channels)) > 0


def test_the_layer_without_any_channel_keeps_a_masked_one() -> None:
    _, graph, channels = captured("chain")
    site = channels.sites[0]
    plan = Plan({site: torch.zeros(graph[site].shape, dtype=torch.bool)})
    small = compact(graph, channels, plan)
    assert small[site].shape[0] == 1
    x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    assert deviation(scores(small, x), scores(mask(graph, plan), x)) < 1e-9
    # With its input at zero, the rest of the network is a constant.
    assert torch.equal(scores(small, x)[0], scores(small, x)[1])


def test_a_channel_goes_only_when_all_its_sites_mask_it() -> None:
    _, graph, channels = captured("depthwise")
    first, second = channels.sites[:2]  # before and after the depthwise convolution
    assert (channels.of[first] == channels.of[second]).all()
    gone = torch.ones(graph[first].shape, dtype=torch.bool)
    gone[2] = False
    assert not removed_classes(channels, Plan({first: gone})).any()
    both = Plan({first: gone, second: gone[:, ::2, ::2]})
    assert removed_classes(channels, both).nonzero()[0].tolist() == [channels.of[first][2]]


@pytest.mark.parametrize("name", ["batch norm", "residual", "shared", "channels-last linear"])
def test_the_module_is_left_alone(name: str) -> None:
    module = build(name)
    module.train()
    module[0].eval()  # a part that is frozen in a network that is not
    calls: list[str] = []
    module.register_forward_hook(lambda *_: calls.append("hook"))
    state = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    hooks = [len(part._forward_hooks) for part in module.modules()]
    grads = [p.requires_grad for p in module.parameters()]

    graph = capture(module, (SIDE, SIDE))
    channels = analyse(graph)
    compact(graph, channels, random_plan(graph, channels, "partial", 0))

    after = module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert [part.training for part in module.modules()] == modes
    assert [len(part._forward_hooks) for part in module.modules()] == hooks
    assert [p.requires_grad for p in module.parameters()] == grads
    assert all(p.grad is None for p in module.parameters())


def test_the_module_is_left_alone_by_a_capture_that_fails() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1), nn.Flatten())
    module.train()
    with pytest.raises(Exception, match="softmax"):
        capture(module, (SIDE, SIDE))
    assert all(part.training for part in module.modules())


_LOAD = """
import sys, torch
assert not any(name.startswith("distillnet") for name in sys.modules)
for path in sys.argv[1:]:
    program = torch.export.load(path + ".pt2").module()
    data = torch.load(path + ".pt", weights_only=True)
    for x, y in zip(data["x"], data["y"], strict=True):  # batches of 3 and of 1
        got = program(x)
        assert got.shape == y.shape and torch.allclose(got, y, rtol=1e-9, atol=1e-9), path
assert not any(name.startswith("distillnet") for name in sys.modules)
print("agrees")
"""

EXPORTED = (
    "residual through concat", "channel shuffle, grouped", "gate and bias", "local response norm",
    "channels-last linear", "padding", "names that collide", "scores from a shared layer",
    "flatten channels last",
)  # fmt: skip


@pytest.mark.slow
def test_export_load_and_run_without_distillnet(tmp_path: Path) -> None:
    paths = []
    for i, name in enumerate(EXPORTED):
        _, graph, channels = captured(name)
        small = compact(graph, channels, random_plan(graph, channels, "partial", i))
        x = torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64)
        batch = torch.export.Dim("batch")
        program = torch.export.export(GraphModule(small), (x,), dynamic_shapes=({0: batch},))
        path = tmp_path / str(i)
        torch.export.save(program, path.with_suffix(".pt2"))
        inputs = [x, x[:1].contiguous()]
        torch.save({"x": inputs, "y": [scores(small, x) for x in inputs]}, path.with_suffix(".pt"))
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _LOAD, *paths], capture_output=True, text=True, check=False
    )
    assert done.stdout == "agrees\n", done.stderr
