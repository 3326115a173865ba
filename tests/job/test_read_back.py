"""A compact network that was saved is captured again as what it was, whatever it is made of."""

from pathlib import Path

import pytest
import torch

from architectures import SIDE, captured
from distillnet.cut.surgery import compact
from distillnet.graph.capture import capture
from distillnet.job.runs import save_program
from distillnet.models.programs import load_program
from plans import deviation, random_plan, scores

# Whose operators are written in others, or in several.
NAMES = (
    "group norm", "instance norm", "efficient channel attention", "channel and place attention",
    "split attention", "selective kernels", "gated, channels last", "rows and columns",
    "padding by pixels", "scaling", "activations with weights", "arithmetic",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_is_captured_again(name: str, tmp_path: Path) -> None:
    _, graph, channels = captured(name)
    small = compact(graph, channels, random_plan(graph, channels, "channels", 1)).to(torch.float32)
    save_program(small, tmp_path / "model.pt2")
    module = load_program(tmp_path / "model.pt2").module
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = scores(small, x)
        assert deviation(module(x), want) < 1e-6
        assert deviation(scores(capture(module, (SIDE, SIDE)), x), want) < 1e-5
