"""What is saved is an ordinary network of PyTorch, and tells nothing of this machine."""

import functools
import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import distillnet as dn
from architectures import ARCHITECTURES, captured
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, GraphModule
from distillnet.graph.operators import APPLY
from distillnet.graph.saving import write_program
from distillnet.models.programs import load_program
from network_parts import SIDE
from plans import random_plan


@functools.cache
def saved(name: str) -> tuple[Graph, bytes]:
    """A network in which channels are gone and neurons masked, in float32, and its file."""
    _, graph, channels = captured(name)
    small = compact(graph, channels, random_plan(graph, channels, "partial", 3)).to(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt2"
        dn.save_program(small, path, {"classes": ["ant", "bee"]})
        return small, path.read_bytes()


# Every operator of the graph, and every form of a constant.
NAMES = (
    "batch norm", "pre-activation, dense", "depthwise", "channel shuffle", "split, slice and pick",
    "shared", "squeeze-excite", "local response norm", "channels-last linear", "pools",
    "pools, padded",
    "constants", "activations", "padding", "names that collide", "masked before",
    "group norm", "efficient channel attention", "channel and place attention", "rows and columns",
    "scaling",
)  # fmt: skip


@pytest.fixture(params=NAMES)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Graph, Path]:
    small, data = saved(request.param)
    (tmp_path / "net.pt2").write_bytes(data)
    return small, tmp_path / "net.pt2"


def test_it_computes_what_the_graph_does(net: tuple[Graph, Path]) -> None:
    graph, path = net
    x = torch.randn(5, 3, SIDE, SIDE)
    with torch.no_grad():
        want = GraphModule(graph)(x)
        torch.testing.assert_close(torch.export.load(path).module()(x), want)
        torch.testing.assert_close(load_program(path).module(x), want)


def test_weights_are_parameters_and_all_other_tensors_buffers(net: tuple[Graph, Path]) -> None:
    graph, path = net
    program = torch.export.load(path)
    weights = {p for n in graph.nodes for role, p in n.params.items()
               if role in ("weight", "bias", "scale", "shift", "kernel")}  # fmt: skip
    module = program.module()
    assert len(list(module.parameters())) == len(weights) > 0
    assert all(p.requires_grad for p in module.parameters())
    assert not program.constants, "what is no buffer is left behind by .to()"
    before = [p.detach().clone() for p in module.parameters()]
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    nn.functional.cross_entropy(
        module(torch.randn(4, 3, SIDE, SIDE)), torch.arange(4) % 2
    ).backward()
    optimiser.step()
    moved = [not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True)]
    assert any(moved)


def test_it_runs_where_it_is_put(net: tuple[Graph, Path]) -> None:
    """On the meta device a tensor of another device is refused, as on any accelerator."""
    graph, path = net
    module = torch.export.load(path).module().to("meta")
    y = module(torch.empty(3, 3, SIDE, SIDE, device="meta"))
    assert y.device.type == "meta"
    assert y.shape == (3, *graph[graph.output].shape)


def test_it_tells_what_it_is_and_nothing_of_this_machine(net: tuple[Graph, Path]) -> None:
    _, path = net
    extra = {"distillnet.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["distillnet.json"]) == {"classes": ["ant", "bee"]}
    data = path.read_bytes()
    for folder in (Path(dn.__file__).parent, Path.home(), Path.cwd(), Path(torch.__file__).parent,
                   Path(sys.prefix)):  # fmt: skip
        assert str(folder).encode() not in data
    assert b"site-packages" not in data
    assert b'File \\"' not in data


def test_the_names_hold_every_operator() -> None:
    found = {node.op for name in NAMES for node in saved(name)[0].nodes}
    assert found >= set(APPLY) - {"unflatten"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_capture_follows_a_programme_may_hold(name: str, tmp_path: Path) -> None:
    """The original as PyTorch exports it: the set of operators of programmes is that of capture."""
    module = captured(name)[0]
    x = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64)
    options = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(module, (x[:2],), dynamic_shapes=options)
    write_program(program, path := tmp_path / "net.pt2", {})
    loaded = load_program(path).module
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), module(x))
