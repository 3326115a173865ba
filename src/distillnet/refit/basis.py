"""Directions of a layer's outputs by how much the mission feels of them.

With the outputs' covariance C over the mission's images and their need N (see ``search.evidence``),

    N = L L^T,   L^T C L = V diag(e) V^T

the first r columns of V tell the r dimensions that hold most: what the others hold changes the
mission's centred scores by the sum of their e in mean square. After Zhang, Zou, He and Sun,
Accelerating Very Deep Convolutional Networks, 2016, who weigh all outputs alike (N = 1).

Filters one column wide have no outputs of their own to look at. With the covariance S of what a
column of the kernel reads, S = R R^T, and A the weight as a matrix from one column's inputs to all
columns' outputs (``thin.matrix``), column j's being A_j,

    [R^T A_1 L, R^T A_2 L, ...] = U diag(s) W^T

the first r columns of R^-T U are the r filters: what they leave out is least in the sum over the
columns, each weighed by itself.
"""

import torch
from torch import Tensor

from distillnet.cut.leading import leading_vectors

__all__ = ["column_covariance", "column_filters", "factor", "output_basis", "output_values"]

_RIDGE = 1e-3  # of the needs' mean diagonal: outputs that nothing feels
_SILENT = 1e-5  # of the inputs' mean variance: inputs that never change
_MOST_RIDGE = 1.0  # as much as all that varies: beyond it there would be nothing of the matrix


def output_values(need_mm: Tensor, covariance_mm: Tensor) -> Tensor:
    """How much the mission feels of each direction of the outputs (M,), float64, falling.

    >>> output_values(torch.eye(2), torch.diag(torch.tensor([1.0, 4.0]))).round().tolist()
    [4.0, 1.0]
    """
    root = factor(need_mm, _RIDGE)
    values = torch.linalg.eigvalsh(root.T @ covariance_mm.double() @ root)
    return values.flip(0).clamp_min(0)


def output_basis(need_mm: Tensor, covariance_mm: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Directions of outputs that the mission feels most of.

    Returns a basis (rank, M) by rows, and what brings its coordinates back (M, rank):
    ``back @ basis`` projects outputs onto the best dimensions. Float64.

    >>> basis, back = output_basis(torch.eye(2), torch.diag(torch.tensor([1.0, 4.0])), 1)
    >>> (back @ basis).round().abs().tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    root, covariance_mm = factor(need_mm, _RIDGE), covariance_mm.double()
    vectors = leading_vectors(lambda v: root.T @ (covariance_mm @ (root @ v)), root, rank)
    return vectors.T @ root.T, torch.linalg.solve_triangular(root.T, vectors, upper=True)


def column_covariance(covariance_dd: Tensor, wide: int) -> Tensor:
    """Of what one column of a kernel ``wide`` columns wide reads, the mean over columns.

    Args:
        covariance_dd: of patches, D = N K_h K_w; the result is (N K_h, N K_h).

    >>> column_covariance(torch.diag(torch.tensor([1.0, 3.0])), 2)
    tensor([[2.]])
    """
    size = len(covariance_dd) // wide
    blocks = covariance_dd.reshape(size, wide, size, wide)
    return blocks.diagonal(dim1=1, dim2=3).mean(-1)


def column_filters(
    matrix_dm: Tensor, need_mm: Tensor, covariance_dd: Tensor
) -> tuple[Tensor, Tensor]:
    """Filters one column wide by how much the mission feels of what they hold, the best first.

    Returns filters (D, D) by rows and their combination (D, K_w M): ``filters[:r].T @
    combination[:r]`` is what r filters make of the matrix, all of them the matrix itself. Float64.

    Args:
        matrix_dm: the weight (D, K_w M), D = N K_h; see ``thin.matrix``.
        covariance_dd: of what a column reads, over all columns of the kernel.
    """
    root = factor(covariance_dd, _SILENT)
    seen = root.T @ matrix_dm.double()
    felt = (seen.unflatten(1, (-1, len(need_mm))) @ factor(need_mm, _RIDGE)).flatten(1)
    directions = torch.linalg.eigh(felt @ felt.T)[1].flip(1)
    filters = torch.linalg.solve_triangular(root.T, directions, upper=True).T
    return filters, directions.T @ seen


def factor(matrix: Tensor, ridge: float) -> Tensor:
    """Cholesky's factor L L^T of a covariance, float64, with a share of its mean diagonal added.

    Ten times the share, and again, where rounding has left a covariance that has none.

    Raises:
        torch.linalg.LinAlgError: there is none at any share; the values are not finite.

    >>> factor(torch.tensor([[4.0]]), 0.0)
    tensor([[2.]], dtype=torch.float64)
    """
    matrix = matrix.double()
    unit = matrix.diagonal().mean().clamp_min(1e-30)
    while ridge < _MOST_RIDGE:
        system = matrix.clone()
        system.diagonal().add_(ridge * unit)
        lower, failed = torch.linalg.cholesky_ex(system)
        if not failed:
            return lower
        ridge = max(10 * ridge, 1e-15)
    raise torch.linalg.LinAlgError("no ridge makes the covariance positive definite")
