"""What is believed of candidates, by what fitted images say and what cross-validation says."""

import math

from distillnet.images.preprocessing import Size
from distillnet.search.flattery import flattery
from distillnet.search.judge import Verdict
from distillnet.search.known import misled_pp
from distillnet.search.smoothing import smoothed

__all__ = ["Beliefs", "Key"]

Key = tuple[Size, int]  # an input size and a level; see ``explorer``


class Beliefs:
    """Verdicts to go by, which all that were cross-validated tell together.

    Where images are many, the middle of fitted and other ones counts. Where they are few, those
    that were fitted tell too little, and one verdict is noisy; see ``smoothing``.

    Args:
        few: whether images are.
        seen: whether the network was trained on them.
        n_fitted: images that networks are fitted on.
        own_size: of the original's input.

    Attributes:
        validated: verdicts by cross-validation.
    """

    def __init__(self, *, few: bool, seen: bool, n_fitted: int, own_size: Size) -> None:
        self.few, self.seen, self.n_fitted, self.own_size = few, seen, n_fitted, own_size
        self.validated: dict[Key, Verdict] = {}
        self._fitted: dict[Key, Verdict] = {}
        self._work: dict[Key, float] = {}
        self._believed: dict[Key, Verdict] = {}

    def add(self, key: Key, fitted: Verdict, crossed: Verdict | None, work: float) -> None:
        """Take note of a cross-validation; without it what fitted images say is as good."""
        part = 1.0 if self.few else 0.5
        self._fitted[key], self._work[key] = fitted, work
        self.validated[key] = fitted if crossed is None else fitted.towards(crossed, part)
        self._believed = dict(self.validated)
        if self.few:
            sides = [math.sqrt(math.prod(size)) for size, _ in self.validated]
            verdicts = smoothed(list(self.validated.values()), list(self._work.values()), sides)
            self._believed = dict(zip(self.validated, verdicts, strict=True))

    def of(self, key: Key, fitted: Verdict) -> Verdict:
        """By cross-validation; before there is one, as others were found to be flattered."""
        found = self._believed.get(key) or fitted.raised(self._flattery())
        if not self.seen:
            return found
        return found.less_certain(misled_pp(math.prod(key[0]) / math.prod(self.own_size)))

    def _flattery(self) -> float:
        pairs = ((self._fitted[key], verdict) for key, verdict in self.validated.items())
        return flattery(pairs, self.n_fitted)
