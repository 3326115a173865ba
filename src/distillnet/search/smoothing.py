"""What candidates lose, told by all of them together: a curve over work and input sizes.

Two networks that are cut about as far lose about as much, but each gets a few images wrong that the
other gets right, by chance. Whoever goes by one verdict at a time stops at the first that was
unlucky, or returns the one that was lucky. So what candidates lose, t, is taken for a draw from a
Gaussian process over the log of their work w and of the side s of their input,

    t ~ N(line in log w,  A^2 exp(-(log w - log w')^2 / 2 a^2 - (log s - log s')^2 / 2 b^2)
                          + B^2 [the same candidate])

that was measured with errors, alike in part, for the same images tell of all. What is returned is
the posterior mean (Rasmussen and Williams, 2006, chapter 2): a measurement that lies off the curve
is drawn to it.

All errors are taken to be as large as the middle one. A verdict's own error is the smaller, the
less it finds lost: weighted by it, the lucky ones count most, and with errors that are alike in
part the posterior may lie below all of them (Peelle's puzzle).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from distillnet.search.judge import Verdict

__all__ = ["smoothed"]

# Points, and logs: about what candidates of the yardstick's developing half show.
_APART_PP, _WORK, _SIDE = 2.0, 0.6, 0.15  # A, a and b
_EACH_PP = 0.3  # B
_LEVEL_PP, _SLOPE_PP = 10.0, 3.0  # of the line: little is known of it
_ALIKE = 0.65  # the correlation of the errors of two candidates


def smoothed(
    verdicts: Sequence[Verdict], work: Sequence[float], sides: Sequence[float]
) -> list[Verdict]:
    """Verdicts with the losses that all of them together let expect; classes move with the mean.

    How uncertain they are stays as it was.

    Args:
        verdicts: of several candidates, on the same images.
        work: of each, in any unit.
        sides: of the input of each, in any unit.

    One alone stays what it is, about; one of four that are cut alike is drawn to the others:

    >>> few = [Verdict(x, x, (x,), 0.0, estimate_pp=x, estimate_uncertain_pp=0.7) for x in (0, 1)]
    >>> [round(v.estimate_pp, 1) for v in smoothed(few[:1], [5.0], [224])]
    [0.0]
    >>> alike = smoothed([few[0], *[few[1]] * 3], [5.0, 5.1, 5.2, 5.3], [224] * 4)
    >>> [round(v.estimate_pp, 1) for v in alike]
    [0.5, 0.8, 0.8, 0.9]
    """
    told = np.array([verdict.estimate_pp for verdict in verdicts])
    error = np.median([verdict.estimate_uncertain_pp for verdict in verdicts])
    less, side = -np.log(np.array(work, float)), np.log(np.array(sides, float))
    less = less - less.mean()
    same = np.eye(len(told))
    prior = (
        _LEVEL_PP**2
        + _SLOPE_PP**2 * np.outer(less, less)
        + _APART_PP**2 * np.exp(-_square(less) / 2 / _WORK**2 - _square(side) / 2 / _SIDE**2)
        + _EACH_PP**2 * same
    )
    noise = error**2 * (_ALIKE + (1 - _ALIKE) * same)
    moved = prior @ np.linalg.solve(prior + noise, told) - told
    return [
        replace(
            verdict,
            estimate_pp=verdict.estimate_pp + shift,
            class_estimates_pp=tuple(loss + shift for loss in verdict.class_estimates_pp),
        )
        for verdict, shift in zip(verdicts, moved.tolist(), strict=True)
    ]


def _square(of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances of each two (M, M)."""
    return np.square(of[:, None] - of[None])
