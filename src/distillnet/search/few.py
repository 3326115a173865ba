"""Which candidates to make where images are few.

There fitted images flatter by more than a budget. So each candidate that is as likely as not within
it by those is cross-validated at once, and the search climbs by what all verdicts tell together.
One that was unlucky does not end it: a candidate beyond what was refused is tried, too.
"""

from collections.abc import Sequence
from dataclasses import replace

from distillnet.images.preprocessing import Size
from distillnet.search.beliefs import Key
from distillnet.search.budget import Budget
from distillnet.search.candidates import Workshop
from distillnet.search.decision import is_within
from distillnet.search.explorer import Explorer, Progress

__all__ = ["FewImages", "explorer_of"]

_HOPE = 0.5  # how likely a candidate has to be within the budget to be validated
_LEAP, _LEAPS = 4, 2  # steps beyond the best; how often


class FewImages(Explorer):
    """A search that cross-validates as it goes."""

    def _holds(self, key: Key) -> bool:
        if key not in self.validated and self._is_hopeful(key):
            self._validate(key)
        return self._allows(key)

    def _is_hopeful(self, key: Key) -> bool:
        hope = replace(self.budget, confidence=min(_HOPE, self.budget.confidence))
        return is_within(hope, self.verdict(key))

    def _refine(self, sizes: Sequence[Size], level: int) -> None:
        super()._refine(sizes, level)
        self._leap()

    def _leap(self) -> None:
        """Try beyond what was refused at the best size, for that may have been bad luck."""
        for _ in range(_LEAPS):
            best = self._smallest_so_far()
            if best is None:
                return
            level = self._level_of(self._work_of(best)) + _LEAP
            if not self._fits(best[0], level):
                return
            self._climb(best[0], level)

    def _tried(self) -> int:
        """Most candidates are validated at once, which leaves nothing for the end."""
        return len(self.done)


def explorer_of(workshop: Workshop, budget: Budget, on_progress: Progress) -> Explorer:
    """The search for a loss to respect, by how many images there are."""
    return (FewImages if workshop.few else Explorer)(workshop, budget, on_progress)
