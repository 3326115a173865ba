"""Leading eigenvectors against all of them, by numpy."""

import numpy as np
import pytest
import torch

from distillnet.cut.leading import leading_vectors


@pytest.mark.parametrize(
    ("size", "count", "power"),
    [
        (40, 5, 1.0),
        (600, 1, 0.5),
        (600, 30, 0.5),
        (600, 30, 1.0),
        (600, 500, 1.0),
        (1024, 100, 2.0),
    ],
)
def test_they_hold_what_the_best_hold(size: int, count: int, power: float) -> None:
    """But for a hundredth where eigenvalues fall as slowly as 1 / sqrt(i)."""
    draw = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(size, size, generator=draw).double())[0]
    values = torch.arange(1, size + 1).double() ** -power
    matrix = turn @ torch.diag(values) @ turn.T
    found = leading_vectors(lambda v: matrix @ v, matrix, count)
    assert found.shape == (size, count)
    assert torch.allclose(found.T @ found, torch.eye(count).double(), atol=1e-9)
    most = np.linalg.eigvalsh(matrix.numpy())[::-1][:count].sum()
    held = (found.T @ matrix @ found).trace().item()
    assert held == pytest.approx(most, rel=1e-2 if power < 1 else 1e-3)
    assert held <= most * (1 + 1e-9)


def test_of_a_matrix_of_their_number_they_hold_all() -> None:
    draw = torch.Generator().manual_seed(1)
    thin = torch.randn(700, 20, generator=draw).double()
    found = leading_vectors(lambda v: thin @ (thin.T @ v), thin, 20)
    assert torch.allclose(found @ (found.T @ thin), thin, atol=1e-9)


def test_they_are_the_same_each_time() -> None:
    matrix = torch.diag(torch.arange(600).double())
    one, two = (leading_vectors(lambda v: matrix @ v, matrix, 4) for _ in range(2))
    assert torch.equal(one, two)
