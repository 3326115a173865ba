"""What export takes apart is put together again where it is that, and refused where it is not."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillnet.errors import UnsupportedError
from distillnet.graph import run
from distillnet.graph.capture import capture

ALPHA, BETA, K = 1e-4, 0.75, 1.0


def _normalised(pool: Callable[[Tensor], Tensor], before: int, after: int) -> type[nn.Module]:
    """As ``F.local_response_norm`` has it, with another mean of squares."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)
            n, _, height, width = x.shape
            squares = F.pad((x * x).view(n, 1, 16, height, width), (0, 0, 0, 0, before, after))
            mean = pool(squares).squeeze(1)
            return self.head((x / (mean.mul(ALPHA).add(K).pow(BETA))).mean((2, 3)))

    return Net


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_a_local_response_norm_is_one(size: int) -> None:
    """Also where its squares are large: of noise of deviation 1 nearly nothing is left of them."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.LocalResponseNorm(size, ALPHA, BETA, K), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    graph = capture(net, (14, 14))
    assert "lrn" in {node.op for node in graph.nodes}
    x = 300 * torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(run(graph, {graph.input.name: x})[graph.output], net(x))


@pytest.mark.parametrize(
    ("kernel", "more", "before", "after"),
    [
        ((5, 3, 3), {"padding": (0, 1, 1)}, 2, 2),
        ((5, 1, 1), {}, 4, 0),
        ((5, 1, 1), {"padding": (2, 0, 0), "count_include_pad": False}, 0, 0),
        ((5, 1, 1), {"divisor_override": 1}, 2, 2),
    ],
    ids=["across places", "of the channels before", "of what is there", "a sum"],
)
def test_another_normalisation_is_not_taken_for_one(
    kernel: tuple[int, ...], more: dict[str, object], before: int, after: int
) -> None:
    net = _normalised(lambda x: F.avg_pool3d(x, kernel, stride=1, **more), before, after)
    with pytest.raises(UnsupportedError):
        capture(net().eval(), (14, 14))
