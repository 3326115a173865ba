"""Directions of a layer's outputs by how much the mission feels of them.

With the outputs' covariance C over the mission's images and their need N (see ``search.evidence``),

    N = L L^T,   L^T C L = V diag(e) V^T

the first r columns of V tell the r dimensions that hold most: what the others hold changes the
mission's centred scores by the sum of their e in mean square. After Zhang, Zou, He and Sun,
Accelerating Very Deep Convolutional Networks, 2016, who weigh all outputs alike (N = 1).
"""

import torch
from torch import Tensor

__all__ = ["output_basis"]

_RIDGE = 1e-3  # of the needs' mean diagonal: outputs that nothing feels


def output_basis(need_mm: Tensor, covariance_mm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions of outputs by how much the mission feels of them, the largest first.

    Returns eigenvalues (M,), a basis (M, M) by rows, and what brings its coordinates back (M, M):
    ``back[:, :r] @ basis[:r]`` projects outputs onto the best r dimensions. All float64.

    >>> values, basis, back = output_basis(torch.eye(2), torch.diag(torch.tensor([1.0, 4.0])))
    >>> [round(v) for v in values.tolist()], torch.allclose(back @ basis, torch.eye(2).double())
    ([4, 1], True)
    """
    need = need_mm.double()
    ridge = _RIDGE * need.diagonal().mean().clamp_min(1e-30)
    factor = torch.linalg.cholesky(need + ridge * torch.eye(len(need), device=need.device))
    values, vectors = torch.linalg.eigh(factor.T @ covariance_mm.double() @ factor)
    vectors = vectors.flip(1)
    basis = vectors.T @ factor.T
    back = torch.linalg.solve_triangular(factor.T, vectors, upper=True)
    return values.flip(0).clamp_min(0), basis, back
