"""What networks usually lose that leave so much less to do: known before images are asked.

One that is next to uncut loses next to nothing, and one that leaves a twentieth rarely loses
nothing, whatever a hundred images say. So what images let expect is drawn to

    N(a u - g w,  (b u)^2 + (h w)^2)

by the precision of both. u: the log of how many times less there is to do; w: how many images the
original gets wrong, of which labels may win some back (``refit.head``). Where images say something
else by more than chance, networks are taken to differ by as much (empirical Bayes): they are not
argued away. Settled on the yardstick's developing half (docs/results.md).
"""

from dataclasses import dataclass

import numpy as np

from distillnet.search.curve import Values

__all__ = ["Usual", "usual"]

_LOST, _LOST_ERROR = 0.5, 1.0  # a and b, points for e times less to do
_WON, _WON_ERROR = 0.2, 0.2  # g and h


@dataclass(frozen=True)
class Usual:
    """A loss in points that is usual, and its standard error; of one network or of several.

    >>> slightly_cut = usual(np.log([1.2]), original_wrong_pp=0.0)
    >>> loss, uncertain = slightly_cut.drawn(np.array([0.5]), np.array([0.7]))
    >>> loss.round(2).tolist(), uncertain.round(2).tolist()
    ([0.12], [0.18])
    """

    loss_pp: Values
    uncertain_pp: Values

    def drawn(self, loss_pp: Values, uncertain_pp: Values) -> tuple[Values, Values]:
        """What is to be expected, and its standard error, where images say such a loss."""
        share = self._share(loss_pp, uncertain_pp)
        expected = self.loss_pp + share * (loss_pp - self.loss_pp)
        return expected, np.sqrt(share) * uncertain_pp

    def undrawn(self, expected_pp: Values, loss_pp: Values, uncertain_pp: Values) -> Values:
        """What images would have to say for so much to be expected, if about ``loss_pp``."""
        share = self._share(loss_pp, uncertain_pp)
        return self.loss_pp + (expected_pp - self.loss_pp) / np.maximum(share, 1e-9)

    def _share(self, loss_pp: Values, uncertain_pp: Values) -> Values:
        """How much images count, from 0 to 1."""
        noise = np.maximum(uncertain_pp, 1e-9) ** 2
        differ = np.maximum(self.uncertain_pp**2, (loss_pp - self.loss_pp) ** 2 - noise)
        return differ / (differ + noise)


def usual(less: Values, original_wrong_pp: float) -> Usual:
    """What networks usually lose.

    Args:
        less: logs of how many times less there is to do.
        original_wrong_pp: images that the original gets wrong, where labels are fitted, else 0.
    """
    loss = _LOST * less - _WON * original_wrong_pp
    return Usual(loss, np.hypot(_LOST_ERROR * less, _WON_ERROR * original_wrong_pp))
