"""Fitting the rule: logistic regression whose classes are the mission's and the unknown.

The mission's own scores are kept but for one temperature, and only the score of the unknown has
weights: with few kinds of unknown images at hand, what is learned of them moves the network's own
judgement (the scores alone) no farther than it pays. Weights are shrunk to zero, where the rule is
a threshold on the mission's largest score.

Legend: N images, K classes of the mission, F features, D directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.missions.unknown.features import Measured
from distillnet.missions.unknown.rule import Rule

__all__ = ["Examples", "fit", "margins"]

# GoogLeNet: less tells the kinds that were shown even better from the mission, more those that were
# not; see docs/unknown.md.
_RIDGE = 1e-5
_MOST_DIRECTIONS = 256
_STEPS = 50
_FLOOR = 0.05  # of the mean deviation: a feature that hardly varies here may do so elsewhere


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with what they count.

    Attributes:
        targets_n: position among the mission's classes; K for the unknown.
        weights_n: their sum is 1.
    """

    measured: Measured
    targets_n: Tensor
    weights_n: Tensor


def fit(known: Measured, unknown: Measured | None) -> Rule:
    """The rule that minimises the cross entropy, half of which is of the mission's images.

    Each class, and each kind of unknown images, counts as much as any other of its half.

    Args:
        known: labels are positions in the mission.
        unknown: labels tell kinds. None fits the temperature only; the rule's bias is 0.
    """
    if unknown is None:
        return _temperature(known)
    k = known.scores_nk.shape[1]
    both = Measured(*(
        torch.cat([getattr(known, name), getattr(unknown, name)])
        for name in ("features_nf", "scores_nk", "labels_n")
    ))  # fmt: skip
    targets = torch.cat([known.labels_n, torch.full_like(unknown.labels_n, k)])
    weights = torch.cat([_balanced(known.labels_n), _balanced(unknown.labels_n)]) / 2
    return _newton(Examples(both, targets, weights))


def margins(measured: Measured, rule: Rule) -> Tensor:
    """The mission's largest calibrated score less that of the unknown, (N,)."""
    weight = torch.tensor(rule.weight, dtype=torch.float64)
    unknown = measured.features_nf @ weight + rule.bias
    return measured.scores_nk.amax(1) / rule.temperature - unknown


def _balanced(labels_n: Tensor) -> Tensor:
    _, kinds, counts = labels_n.unique(return_inverse=True, return_counts=True)
    return 1 / (counts[kinds].double() * len(counts))


def _temperature(known: Measured) -> Rule:
    """Guo et al., On Calibration of Modern Neural Networks, 2017, by golden section."""
    rows, weights = torch.arange(len(known)), _balanced(known.labels_n)

    def loss(log_t: float) -> float:
        logs = (known.scores_nk / torch.tensor(log_t).exp()).log_softmax(1)
        return -float(weights @ logs[rows, known.labels_n])

    low, high, golden = -5.0, 7.0, (5**0.5 - 1) / 2
    for _ in range(40):
        one, two = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, two) if loss(one) < loss(two) else (one, high)
    temperature = float(torch.tensor((low + high) / 2).exp())
    return Rule(temperature, (0.0,) * known.features_nf.shape[1], 0.0)


def _newton(examples: Examples) -> Rule:
    """Newton's method with halved steps; the problem is convex in (weights, bias, 1 / T)."""
    x, y = examples.measured.features_nf, examples.measured.scores_nk
    w, n = examples.weights_n, torch.arange(len(x))
    mean = w @ x
    deviation = (w @ (x - mean).square()).sqrt()
    scale = (deviation + _FLOOR * deviation.mean().clamp_min(1e-30)) * x.shape[1] ** 0.5
    z = (x - mean) / scale
    directions = _directions(z, w)
    z = torch.cat([z @ directions, torch.ones(len(z), 1, dtype=z.dtype)], 1)
    spread = float(y.amax(1).std().clamp_min(1e-6))
    y = y / spread  # so that one unit is one unit whatever the network's scores are
    size = z.shape[1] + 1
    shrink = torch.full((size,), 2 * _RIDGE, dtype=z.dtype)
    shrink[-2:] = 1e-9  # bias and temperature are free
    theta = torch.zeros(size, dtype=z.dtype)
    theta[-1] = 1.0

    def logits(theta: Tensor) -> Tensor:
        return torch.cat([y * theta[-1], (z @ theta[:-1])[:, None]], 1)

    def loss(theta: Tensor) -> float:
        logs = logits(theta).log_softmax(1)[n, examples.targets_n]
        return float(-(w @ logs) + 0.5 * (shrink * theta.square()).sum())

    now = loss(theta)
    for _ in range(_STEPS):
        p = logits(theta).softmax(1)
        p_u, p_k = p[:, -1], p[:, :-1]
        is_u = (examples.targets_n == y.shape[1]).double()
        right = y.gather(1, examples.targets_n.clamp_max(y.shape[1] - 1)[:, None])[:, 0]
        mean_y, mean_yy = (p_k * y).sum(1), (p_k * y.square()).sum(1)
        of_t = w @ (mean_y - right * (1 - is_u))
        gradient = torch.cat([z.T @ (w * (p_u - is_u)), of_t[None]]) + shrink * theta
        hessian = torch.diag(shrink + 1e-12)
        hessian[:-1, :-1] += z.T @ ((w * p_u * (1 - p_u))[:, None] * z)
        cross = z.T @ (w * -p_u * mean_y)
        hessian[:-1, -1] += cross
        hessian[-1, :-1] += cross
        hessian[-1, -1] += w @ (mean_yy - mean_y.square())
        step = torch.linalg.solve(hessian, gradient)
        share = 1.0
        while share > 1e-6 and (found := loss(theta - share * step)) > now:
            share /= 2
        if share <= 1e-6 or now - found < 1e-12:
            break
        theta, now = theta - share * step, found
    inverse = float(theta[-1].clamp_min(1e-3)) / spread
    weight = directions @ theta[:-2] / scale
    bias = float(theta[-2]) - float(mean @ weight)
    return Rule(1 / inverse, tuple(weight.tolist()), bias)


def _directions(z_nf: Tensor, weights_n: Tensor) -> Tensor:
    """The leading principal directions (F, D): what the others hold is shrunk away anyway."""
    covariance = z_nf.T @ (weights_n[:, None] * z_nf)
    return torch.linalg.eigh(covariance)[1].flip(1)[:, :_MOST_DIRECTIONS]
