"""Fitting depthwise convolutions: a filter for each channel, to what it reads by now.

    min over w, b of  sum over rows (w x + b - z)^2  +  ridge |w - w0|^2      for each channel

As ``regression`` has it for whole layers, with aims that a ReLU behind cannot tell apart and a
ridge that images held out choose; here each channel has few columns, and a ridge of its own. All
are solved at once, in the eigenvectors of each channel's covariance, where every ridge is a
division.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distillnet.refit.regression import RIDGES, ROUNDS, aims_behind, held_out, is_met

__all__ = ["fit_each"]


def fit_each(
    x_rcd: Tensor,
    aims_rc: Tensor,
    weight_cd: Tensor,
    bias_c: Tensor,
    flat: Sequence[tuple[float, float]] = (),
    image_r: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The filters (C, D) and biases (C,) that give ``aims_rc`` from ``x_rcd``, by ridge regression.

    Shrunk towards the filters that are given; a channel keeps its filter, with another bias, where
    no ridge does better on held-out images.

    Args:
        flat: intervals in which the activation behind is constant.
        image_r: (R,) which image each row comes from, whose rows are held out together.

    >>> x = torch.tensor([[[0.0]], [[1.0]], [[2.0]], [[3.0]]])
    >>> weight, bias = fit_each(x, 2 * x[..., 0] + 1, torch.zeros(1, 1), torch.zeros(1))
    >>> print(f"{weight.item():.3f} {bias.item():.3f}")
    2.000 1.000
    """
    before_rc = torch.einsum("rcd,cd->rc", x_rcd, weight_cd) + bias_c
    if is_met(aims_rc, before_rc, flat):
        return weight_cd, bias_c
    missing_rc = aims_rc - before_rc
    mean_cd, offset_c = x_rcd.mean(0), missing_rc.mean(0)
    centred = (x_rcd - mean_cd).permute(1, 0, 2).double()  # C, R, D
    unit_c = centred.square().sum((1, 2)).clamp_min(1e-30) / centred.shape[2]
    hold = held_out(len(x_rcd), image_r).to(x_rcd.device)
    ridge_c = _best_ridges(centred, (missing_rc - offset_c).T.double(), hold) * unit_c
    values, vectors = torch.linalg.eigh(centred.mT @ centred)
    shrunk = 1 / (values.clamp_min(0) + ridge_c[:, None])  # nothing where the ridge is infinite

    def solve(missing: Tensor) -> Tensor:
        """Changes (C, D) of the filters."""
        cross = (centred.mT @ missing.T.double()[..., None])[..., 0]
        return torch.einsum("cde,ce,cfe,cf->cd", vectors, shrunk, vectors, cross).to(x_rcd.dtype)

    change_cd, fits_c = solve(missing_rc - offset_c), ridge_c.isfinite()
    for _ in range(ROUNDS if flat else 0):
        now_rc = before_rc + offset_c + torch.einsum("rcd,cd->rc", x_rcd - mean_cd, change_cd)
        missing_rc = aims_behind(aims_rc, now_rc, flat) - before_rc
        # Behind noise that no filter tells, new aims would be those that the last offset gave.
        offset_c = torch.where(fits_c, missing_rc.mean(0), offset_c)
        change_cd = solve(missing_rc - offset_c)
    return weight_cd + change_cd, bias_c + offset_c - (mean_cd * change_cd).sum(1)


def _best_ridges(centred: Tensor, missing_cr: Tensor, hold_r: Tensor) -> Tensor:
    """By channel (C,) the ridge of least error on held-out rows, in units of the inputs' variance.

    Infinite where that is to leave the filter as it is.

    Args:
        centred: inputs (C, R, D).
        missing_cr: what the filters shall add.
    """
    fit, test = centred[:, ~hold_r], centred[:, hold_r]
    gram = fit.mT @ fit
    unit_c = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-30) / gram.shape[1]
    values, vectors = torch.linalg.eigh(gram)
    cross = (vectors.mT @ (fit.mT @ missing_cr[:, ~hold_r, None]))[..., 0]
    seen, aims = test @ vectors, missing_cr[:, hold_r]
    ridges, errors = [*RIDGES, torch.inf], []
    for ridge in ridges:
        change = cross / (values.clamp_min(0) + ridge * unit_c[:, None])
        errors.append(((seen @ change[..., None])[..., 0] - aims).square().sum(1))
    best = torch.stack(errors).argmin(0)
    return torch.tensor(ridges, dtype=centred.dtype, device=centred.device)[best]
