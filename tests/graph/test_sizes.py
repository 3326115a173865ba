"""A network at another input size: the same whether its graph is reshaped or captured there."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import ARCHITECTURES
from distillnet.graph import Graph, run
from distillnet.graph import capture as room
from distillnet.graph.capture import capture, capture_model
from network_parts import SIDE


class _PadsBySize(nn.Module):
    """As TensorFlow's "same" padding: another one at another size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        over = (3 - x.shape[-1] % 2) if x.shape[-1] % 4 else 0
        return self.head(self.conv(F.pad(x, (0, over, 0, over))).relu().mean((2, 3)))


def _model(module: nn.Module, side: int) -> SimpleNamespace:
    how = SimpleNamespace(input_size=(side, side), mean=(0.0,) * 3)
    return SimpleNamespace(module=module, preprocessing=how)


def _scores(graph: Graph, x: Tensor) -> Tensor:
    return run(graph, {graph.input.name: x})[graph.output]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_reshaped_graph_is_the_one_captured_there(name: str) -> None:
    side = SIDE + 8
    torch.manual_seed(0)
    module = deepcopy(ARCHITECTURES[name]()).float().eval()  # others share its parts
    first = capture(module, (SIDE, SIDE))
    try:
        there = capture(module, (side, side))
    except Exception:  # noqa: BLE001 - whatever keeps the module from taking another size
        with pytest.raises(Exception):  # noqa: B017, PT011
            capture_model(_model(module, SIDE), (side, side), like=first)
        return
    got = capture_model(_model(module, SIDE), (side, side), like=first)
    assert [node.shape for node in got.nodes] == [node.shape for node in there.nodes]
    assert [node.op for node in got.nodes] == [node.op for node in there.nodes]
    x = torch.randn(2, 3, side, side, dtype=next(iter(got.params.values())).dtype)
    torch.testing.assert_close(_scores(got, x), _scores(there, x))


def test_a_network_that_looks_at_its_input_size_is_captured_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captured = []
    real = room.capture
    monkeypatch.setattr(room, "capture", lambda *a, **k: captured.append(a) or real(*a, **k))
    module = _PadsBySize().eval()
    first = real(module, (16, 16))
    assert capture_model(_model(module, 16), (20, 20), like=first).input.shape == (3, 20, 20)
    assert not captured, "it does the same there"
    again = capture_model(_model(module, 16), (18, 18), like=first)
    assert len(captured) == 1
    x = torch.randn(2, 3, 18, 18)
    torch.testing.assert_close(_scores(again, x), module(x))
