"""What is believed of candidates, of those that were made and of those that were not.

Every candidate was judged by images that it was fitted on, which flatter; some were
cross-validated, too. Two curves (``curve``) bring all of it together: by how much fitted images
flatter, as those tell that were judged both ways, and, with that taken off, what candidates lose.
So each tells of all others, and of what others would lose.

Curves run over the input size and over how far a network is cut at that size: about how many times
less there is to do than for the original at the same size. Going from 224 pixels to 112 leaves a
quarter of the work, so of 7 times less work only a factor of 1.75 comes from cutting channels,
which costs little. Seen this way, candidates of all sizes lie near one line, and two sizes are
enough to find it; by work alone, each size has a line of its own. What known images hide
(``known``) depends on the size alone, so it is taken off before the curve is drawn and added again
afterwards.

A candidate that was judged both ways is believed to lose the middle of what both let expect: they
tell as much of what is found as each other, and together more (``docs/results.md``). Where fitted
images were found to flatter by very unlike amounts, the other way counts for more.

All errors are taken to be as large as the middle one. A verdict's own error is the smaller, the
less it finds lost: weighted by it the lucky ones would count most.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from distillnet.images.preprocessing import Size
from distillnet.search.budget import Budget
from distillnet.search.curve import Curve, Prior, Values
from distillnet.search.decision import limits, ndtr
from distillnet.search.judge import Verdict
from distillnet.search.known import hidden_pp, misled_pp
from distillnet.search.usual import Usual, usual

__all__ = ["ALIKE", "LOSS", "Beliefs", "Key", "place"]

Key = tuple[Size, int]  # an input size and a level; see ``explorer``

# In points; of all that were tried, what the yardstick's developing half makes likeliest
# (``benchmarks/verdict.py priors``).
LOSS = Prior((0.0, 10.0), (2.0, 1.0), small=1.0, bend=1.5, side=0.75, each=0.15)
# What a class loses at most.
_WORST = Prior((0.0, 20.0), (2.0, 1.0), small=1.0, bend=3.0, side=1.5, each=0.6)
_NOISE_OF_WORST = 2.0  # times that of the mean
ALIKE = 0.65  # the correlation of the errors of two candidates: the same images judge both
_FAR_PP = 2.5  # for each point of the budget and one more: beyond is far beyond
# By how much fitted images flatter before a cross-validation has told: the less, the more images.
_FLATTERED_IMAGES, _MOST_PP, _LEAST_PP = 90, 0.5, 1e-3
# (A curve needs some: as good as none are a thousandth of a point.)
_BY_HEART_PP = 1.5  # more, where the network was trained on them: what it knows by heart is lost
_UNUSUAL = 3.0  # times as much as candidates differ by, of how much they are flattered


class Beliefs:
    """Verdicts to go by.

    Args:
        budget: what may be lost.
        part: how much of what cross-validation says counts, beside fitted images.
        seen: whether the network was trained on the images.
        flattering: whether images judge that networks were fitted on.
        n_fitted: images that networks are fitted on.
        own_size: of the original's input.
        labels: whether last layers may win something by labels.

    Attributes:
        validated: verdicts by cross-validation; ``fitted`` by images that were fitted on, with what
            these hide.
        at: where candidates lie in the curves; ``less``: the log of how many times less each leaves
            to do.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        part: float,
        seen: bool,
        flattering: bool,
        n_fitted: int,
        own_size: Size,
        labels: bool,
    ) -> None:
        self.budget, self.part, self.seen, self.own_size = budget, part, seen, own_size
        self.labels, self.flattering = labels, flattering
        by_heart = _BY_HEART_PP if seen else 0.0
        usual_pp = part * (min(_MOST_PP, _FLATTERED_IMAGES / n_fitted) + by_heart)
        self.usual_pp = max(_LEAST_PP, usual_pp)
        self.validated: dict[Key, Verdict] = {}
        self.fitted: dict[Key, Verdict] = {}
        self.at: dict[Key, tuple[float, float]] = {}
        self.less: dict[Key, float] = {}
        self._known: _Known | None = None

    def spend(self, budget: Budget) -> None:
        """Go by another budget."""
        self.budget, self._known = budget, None

    def add(self, key: Key, fitted: Verdict, ratio: float) -> None:
        """Take note of a candidate that leaves ``ratio`` times less to do."""
        if key not in self.fitted:
            self.fitted[key] = fitted.shifted(self.hidden_pp(key[0]))
            self.at[key] = place(self._pixels(key[0]), ratio)
            self.less[key] = math.log(ratio)
            self._known = None

    def validate(self, key: Key, crossed: Verdict | None) -> None:
        """Take note of a cross-validation; without it what fitted images say is as good."""
        fitted = self.fitted[key]
        self.validated[key] = fitted if crossed is None else fitted.towards(crossed, self.part)
        self._known = None

    def of(self, key: Key) -> Verdict:
        """What all candidates together let expect of one of them."""
        verdict = self._less_certain(self._now.verdicts[key], key[0])
        less = np.array([self.less[key]])
        said = np.array([verdict.estimate_pp]), np.array([verdict.estimate_uncertain_pp])
        loss, uncertain = self._usual_loss(less, verdict).drawn(*said)
        verdict = verdict.shifted(float(loss[0]) - verdict.estimate_pp)
        return replace(verdict, estimate_uncertain_pp=float(uncertain[0]))

    def vague_pp(self, key: Key) -> float:
        """How little is known of how much fitted images flatter a candidate: a standard error."""
        return 0.0 if key in self.validated else self._now.vague_pp[key]

    def chances(self, size: Size, ratios: Sequence[float]) -> Values:
        """How likely candidates of a size with so many times less to do would seem allowed (R,).

        By their average loss and by that of the worst class.
        """
        now = self._now
        at = np.array([place(self._pixels(size), ratio) for ratio in ratios])
        (mean, uncertain), (worst, worst_uncertain) = now.losses.of(at), now.worst.of(at)
        mean, worst = mean + self.hidden_pp(size), worst + self.hidden_pp(size)
        one = self._less_certain(now.usual, size)  # as uncertain as most
        error = np.full(len(ratios), one.estimate_uncertain_pp)
        before = self._usual_loss(np.log(ratios), one)
        expected, expected_error = before.drawn(mean, error)
        most = limits(self.budget, expected_error, one.original_wrong_pp)
        most_of_worst = self.budget.class_limit_pp - (expected - mean)
        allowed = _below(before.undrawn(most, mean, error), mean, uncertain)
        return allowed * _below(most_of_worst, worst, worst_uncertain)

    def flattery(self) -> Prior:
        """By how much fitted images flatter; by more or less, where something unusual was found."""
        usual = self.usual_pp
        found = [v.estimate_pp - self.fitted[key].estimate_pp for key, v in self.validated.items()]
        most = max((abs(more - usual) for more in found), default=0.0)
        apart = max(usual, most / _UNUSUAL)
        return Prior(
            (usual, apart / 2), (0.0, apart / 2), bend=apart / 2, side=apart / 4, each=apart
        )

    def curve(self, prior: Prior, at: Values, told: Sequence[float], error: Values) -> Curve:
        """Of losses ``told`` of candidates, and of none at the last place, the original's.

        How much more is lost than may be by far tells nothing of where it may.
        """
        most = _FAR_PP * (1 + self.budget.max_loss_pp) * prior.side / LOSS.side
        return Curve(prior, at, np.minimum([*told, 0.0], most), error)

    @property
    def _now(self) -> "_Known":
        if self._known is None:
            self._known = _Known(self)
        return self._known

    def _usual_loss(self, less: Values, verdict: Verdict) -> Usual:
        """What networks usually lose that leave so many times less to do, in logs."""
        return usual(less, verdict.original_wrong_pp if self.labels else 0.0)

    def _less_certain(self, verdict: Verdict, size: Size) -> Verdict:
        if not self.seen:
            return verdict
        return verdict.less_certain(misled_pp(self._pixels(size), corrected=self.flattering))

    def hidden_pp(self, size: Size) -> float:
        """How much more than fitted images show is lost at a size."""
        hides = self.seen and self.flattering
        return hidden_pp(self._pixels(size)) if hides else 0.0

    def _pixels(self, size: Size) -> float:
        """A share of those that the original has."""
        return math.prod(size) / math.prod(self.own_size)


class _Known:
    """The curves as of now, and the verdict of each candidate by them.

    Attributes:
        usual: a verdict that is as uncertain as most.
        vague_pp: of each candidate, the standard error of how much fitted images flatter it.
    """

    def __init__(self, beliefs: Beliefs) -> None:
        keys, validated = list(beliefs.fitted), beliefs.validated
        both = [key in validated for key in keys]
        at = np.array([beliefs.at[key] for key in keys]).reshape(-1, 2)
        more = [
            validated[k].estimate_pp - beliefs.fitted[k].estimate_pp for k in keys if k in validated
        ]
        prior = beliefs.flattery()
        flattery = Curve(prior, at[both], np.array(more), np.zeros(len(more)))
        gap, vague = flattery.of(at)
        self.vague_pp = dict(zip(keys, vague.tolist(), strict=True))
        self.usual = _middle_of(list((validated or beliefs.fitted).values()))
        # Variances of both ways; where they are as uncertain as each other, the middle counts.
        by_fitted, by_others = vague**2 + prior.each**2 / 2, beliefs.usual_pp**2 / 2
        way = by_fitted / (by_fitted + by_others)
        told = []
        for i, key in enumerate(keys):
            raised, crossed = beliefs.fitted[key].shifted(float(gap[i])), validated.get(key)
            if crossed is beliefs.fitted[key]:  # others judge than those that were fitted
                raised = crossed
            told.append(raised if crossed is None else raised.towards(crossed, float(way[i])))
        off = np.sqrt(np.where(both, way * by_others, by_fitted))
        error = math.sqrt(1 - ALIKE) * self.usual.estimate_uncertain_pp
        # The original itself loses nothing.
        at = np.vstack([at, place(1.0, 1.0)])
        own, of_worst = (np.append(np.hypot(n * error, off), 0.0) for n in (1, _NOISE_OF_WORST))
        # Curves are of what images show; what they hide is known at any size, tried or not.
        shown = [v.shifted(-beliefs.hidden_pp(k[0])) for k, v in zip(keys, told, strict=True)]
        self.losses = beliefs.curve(LOSS, at, [verdict.estimate_pp for verdict in shown], own)
        worst = [max(verdict.class_estimates_pp) for verdict in shown]
        self.worst = beliefs.curve(_WORST, at, worst, of_worst)
        shifts = self.losses.measured() - self.losses.told
        self.verdicts = {
            key: verdict.shifted(shift)
            for key, verdict, shift in zip(keys, told, shifts[:-1].tolist(), strict=True)
        }


def place(pixels: float, ratio: float) -> tuple[float, float]:
    """Where a candidate lies in the curves, see ``Curve``.

    Args:
        pixels: of the input, as a share of those that the original has.
        ratio: how many times less there is to do.

    >>> [round(x, 2) for x in place(0.25, 7.0)]
    [0.56, -0.69]
    """
    return math.log(ratio * pixels), math.log(pixels) / 2


def _middle_of(verdicts: Sequence[Verdict]) -> Verdict:
    if not verdicts:
        return Verdict(0.0, 0.0, (0.0,), 0.0, estimate_uncertain_pp=1.0)
    error = median(verdict.estimate_uncertain_pp for verdict in verdicts)
    return replace(verdicts[0], estimate_uncertain_pp=error)


def _below(most: Values, mean: Values, uncertain: Values) -> Values:
    """How likely each is no larger."""
    return ndtr((most - mean) / np.maximum(uncertain, 1e-9))
