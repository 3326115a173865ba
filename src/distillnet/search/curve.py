"""A curve over how far networks are cut and their input sizes: a Gaussian process.

Two networks that are cut about as far lose about as much, but each gets a few images wrong that the
other gets right, by chance. So what a candidate loses, t, is taken for a draw from

    t ~ N(plane in u, v,  k(u, u') (A^2 + S^2 exp(-(v - v')^2 / 2 b^2)) + E^2 [the same candidate])
    k(u, u') = exp(-(u - u')^2 / 2 a^2)

u: the log of about how many times less there is to do than for the original at this input size; v:
that of the input's side as a share of the original's. Each t was measured with an error of its own.
The posterior (Rasmussen and Williams, 2006, chapter 2) tells what others would lose, and draws a
measurement that lies off the curve to it.

Errors that all measurements share, for the same images tell of all, move the whole curve, and no
measurement tells by how much. So the curve is that of losses with these errors in them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Prior", "Values"]

_MIDDLE = np.log(5.0)  # of u: where the plane's level is told

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What is known of a curve before anything is measured, in points.

    Attributes:
        level: at ``_MIDDLE`` and the network's own size, and its standard error; ``slope`` for e
            times less to do; ``small`` for a side e times smaller.
        bend: A, how far the curve strays from the plane; ``side``: S, what sizes differ by.
        each: E, what candidates differ by that are cut alike.
        widths: a and b, how far apart places tell little of each other.
    """

    level: tuple[float, float]
    slope: tuple[float, float]
    bend: float
    side: float
    each: float
    small: float = 0.0
    widths: tuple[float, float] = (1.0, 0.25)

    def mean(self, at: Values) -> Values:
        """Of places (N, 2), each u and v."""
        return self.level[0] + self.slope[0] * (at[:, 0] - _MIDDLE) - self.small * at[:, 1]

    def covariance(self, at: Values, other: Values) -> Values:
        """Of two places each (N, M), but for what is a candidate's own."""
        u, v = (np.square(at[:, None, i] - other[None, :, i]) for i in (0, 1))
        line = np.outer(at[:, 0] - _MIDDLE, other[:, 0] - _MIDDLE)
        near = np.exp(-u / 2 / self.widths[0] ** 2)
        apart = self.bend**2 + self.side**2 * np.exp(-v / 2 / self.widths[1] ** 2)
        return self.level[1] ** 2 + self.slope[1] ** 2 * line + apart * near


class Curve:
    """What measurements tell of a curve.

    Args:
        at: places (N, 2), each u and v.
        told: (N,) what was measured there, ``error`` its standard error without what all share.

    >>> prior = Prior((0.0, 10.0), (1.0, 1.0), bend=1.0, side=1.0, each=0.3)
    >>> places = np.log([[4.0, 1.0], [6.0, 1.0]])
    >>> curve = Curve(prior, places, np.array([0.0, 1.0]), np.array([0.4, 0.4]))
    >>> mean, uncertain = curve.of(np.log([[5.0, 1.0], [12.0, 1.0]]))
    >>> mean.round(1).tolist(), uncertain.round(1).tolist()
    ([0.5, 1.9], [0.4, 1.2])
    """

    def __init__(self, prior: Prior, at: Values, told: Values, error: Values) -> None:
        self.prior, self.at, self.told = prior, at, told
        own = np.eye(len(at)) * prior.each**2
        self.alike = prior.covariance(at, at) + own
        self.inverse = np.linalg.inv(self.alike + np.diag(np.square(error)))
        self.pull = self.inverse @ (told - prior.mean(at))

    def of(self, at: Values) -> tuple[Values, Values]:
        """The curve at places (M, 2), and its standard error: no candidate's own is in it."""
        across = self.prior.covariance(at, self.at)
        mean = self.prior.mean(at) + across @ self.pull
        before = np.diagonal(self.prior.covariance(at, at))
        variance = before - np.einsum("mn,nk,mk->m", across, self.inverse, across)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def measured(self) -> Values:
        """What is believed of the candidates that were measured themselves (N,)."""
        return self.prior.mean(self.at) + self.alike @ self.pull

    def likelihood(self) -> float:
        """The log likelihood of what was measured, but for a constant."""
        off = self.told - self.prior.mean(self.at)
        return float(np.linalg.slogdet(self.inverse)[1] - off @ self.pull) / 2
