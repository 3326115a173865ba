"""The discrete Gaussian mechanism, exactly: integers in, integers out, no floating point between.

Adding noise that was drawn as floating-point numbers tells more than it should by their last bits
(Mironov, On significance of the least significant bits for differential privacy, 2012). Sums here
are integers and get integers added to them,

    P(x)  proportional to  exp(-x^2 / (2 s^2)),   x an integer,

drawn by rejection with nothing but fair draws of integers (Canonne, Kamath and Steinke, The
discrete Gaussian for differential privacy, 2020, algorithms 1 to 3), from the operating system's
generator for secrets. For a sum that an image changes by D at most in Euclidean length this is
rho-concentrated private with rho = D^2 / (2 s^2) (their theorem 14), and so (epsilon, delta)
private for every epsilon with

    delta = min over a > 1 of  exp((a - 1) (a rho - epsilon)) / (a - 1) (1 - 1 / a)^a

(their corollary 13). Every a gives a bound that holds; a better one saves a little noise.
"""

import math
import secrets
from collections.abc import Callable

from distillnet.errors import InputError

__all__ = ["check_epsilon", "discrete_gaussian", "epsilon_of", "rho_for", "variance_for"]

Below = Callable[[int], int]  # an integer from 0 to one less than what is given, each as likely

_ORDERS = tuple(1 + math.exp(0.05 * i) for i in range(-160, 241))  # a: 1.0003 to 160,000
_HALVINGS = 100
_LEAST_RHO = 1e-9  # noise of 20,000 times what an image adds


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon that goes with a delta where noise is rho-concentrated private.

    >>> round(epsilon_of(rho_for(8.0, 1e-6), 1e-6), 6)
    8.0
    """
    return max(
        0.0,
        min(
            a * rho
            + math.log1p(-1 / a) * a / (a - 1)
            - (math.log(delta) + math.log(a - 1)) / (a - 1)
            for a in _ORDERS
        ),
    )


def rho_for(epsilon: float, delta: float) -> float:
    """The largest rho that keeps epsilon at a delta, from below."""
    low, high = 0.0, epsilon + 1.0
    while epsilon_of(high, delta) <= epsilon:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    return low


def check_epsilon(epsilon: float, delta: float) -> None:
    """Raise InputError where so small an epsilon takes more noise than there are numbers for."""
    if rho_for(epsilon, delta) < _LEAST_RHO:
        raise InputError(
            f"found --noise {epsilon:g}; with --delta {delta:g} expected "
            f"{epsilon_of(2 * _LEAST_RHO, delta):.2g} or more: with more noise nothing is left"
        )


def variance_for(squared_sensitivity: int, rho: float) -> int:
    """s^2, a whole number: at least what rho takes of a sum that an image changes so much.

    >>> variance_for(8, 0.5)
    8
    """
    return max(1, math.ceil(squared_sensitivity / (2 * rho)))


def discrete_gaussian(variance: int, below: Below = secrets.randbelow) -> int:
    """A draw from P(x) proportional to exp(-x^2 / (2 variance)) (algorithm 3).

    >>> abs(discrete_gaussian(1)) < 100
    True
    """
    t = math.isqrt(variance) + 1
    while True:
        y = _discrete_laplace(t, below)
        if _bernoulli_exp((abs(y) * t - variance) ** 2, 2 * variance * t * t, below):
            return y


def _discrete_laplace(t: int, below: Below) -> int:
    """A draw from P(x) proportional to exp(-|x| / t) (algorithm 2)."""
    while True:
        u = below(t)
        if not _bernoulli_exp(u, t, below):
            continue
        v = 0
        while _bernoulli_exp(1, 1, below):
            v += 1
        x = u + t * v
        negative = below(2) == 1
        if x or not negative:
            return -x if negative else x


def _bernoulli_exp(n: int, d: int, below: Below) -> bool:
    """True with probability exp(-n / d) (algorithm 1)."""
    while n > d:
        if not _bernoulli_exp(1, 1, below):
            return False
        n -= d
    k = 1
    while below(d * k) < n:  # with probability n / (d k)
        k += 1
    return k % 2 == 1
