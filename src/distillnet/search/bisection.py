"""Thresholds by binary search on errors alone, as the paper may be read; see ``readings``.

Each answer of the network on the search images is right or wrong; what is lost is counted on
average, as the paper counts it.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.graph import Graph
from distillnet.graph.replay import Replay, masked_scores
from distillnet.search.readings import Reading
from distillnet.search.scores import Score
from distillnet.search.units import Unit

__all__ = ["Counted", "bisected", "trials_of"]

_STEPS = 6  # of a binary search: thresholds to a 64th of a layer's neurons
_MOST_ACTIVITY = 4.0  # thresholds up to so many times the mean output, of a layer or of all
_ACTIVITY_STEPS = 9
_ROUNDING = 1e-9

Shares = tuple[float, ...]  # by unit
Keep = Mapping[str, Tensor]


class Counted:
    """How many more answers are wrong than the original's, in points.

    Args:
        scores_nk: of the original, all its classes.
        labels_n: positions in the mission.
        open_set: whether an answer is the best of all classes, or of the mission's.
    """

    def __init__(
        self, scores_nk: Tensor, labels_n: Tensor, mission: Mission, *, open_set: bool
    ) -> None:
        places = torch.tensor(mission.indices)
        self.among = torch.arange(scores_nk.shape[1]) if open_set else places
        self.right_n = places[labels_n]
        self.wrong = self._wrong(scores_nk)

    def _wrong(self, scores_nk: Tensor) -> int:
        answers = self.among[scores_nk[:, self.among].argmax(1).cpu()]
        return int((answers != self.right_n).sum())

    def loss_pp(self, scores_nk: Tensor) -> float:
        """What is lost with scores (N, classes) of another network, on average."""
        return 100 * (self._wrong(scores_nk) - self.wrong) / len(self.right_n)


def trials_of(reading: Reading, n_units: int) -> int:
    """How many networks a reading tries; for progress only."""
    steps = {"layer": n_units * _STEPS, "quantile": _STEPS}
    return steps.get(reading.thresholds, _ACTIVITY_STEPS)


def bisected(
    graph: Graph,
    units: Sequence[Unit],
    score: Score,
    x_nchw: Tensor,
    counted: Counted,
    max_loss_pp: float,
    reading: Reading,
    savings: Sequence[float],
    on_trial: Callable[[int], None] = lambda done: None,
) -> Shares:
    """What a reading removes of each unit.

    Args:
        savings: what a unit saves, for the order of "saving".
        on_trial: called with the number of networks that were tried.
    """
    tried = 0

    def fits(scores_nk: Tensor, allowed_pp: float) -> bool:
        nonlocal tried
        tried += 1
        on_trial(tried)
        return counted.loss_pp(scores_nk) <= allowed_pp + _ROUNDING

    def whole(shares: Shares) -> bool:
        return fits(masked_scores(graph, x_nchw, _keep(units, shares)), max_loss_pp)

    if reading.thresholds == "quantile":
        share = _largest(lambda x: whole((x,) * len(units)), 1.0, _STEPS)
        return (share,) * len(units)
    if reading.thresholds in ("activity", "output"):
        means = [_mean(unit, score) for unit in units]
        if reading.thresholds == "output":
            means = [sum(means) / len(means)] * len(means)

        def below(times: float) -> Shares:
            pairs = zip(units, means, strict=True)
            return tuple(_share_below(unit, score, times * mean) for unit, mean in pairs)

        return below(_largest(lambda t: whole(below(t)), _MOST_ACTIVITY, _ACTIVITY_STEPS))
    order = list(range(len(units)))
    if reading.order == "saving":
        order.sort(key=lambda i: -savings[i])
    if reading.order == "back":
        order.reverse()
    shares = [0.0] * len(units)
    network = Replay(graph, x_nchw) if reading.order == "front" else _Whole(graph, x_nchw)
    for n, i in enumerate(order):
        unit = units[i]
        allowed_pp = max_loss_pp * ((n + 1) / len(order) if reading.shared else 1.0)
        network.go_to(unit.sites)

        def good(share: float, unit: Unit = unit, allowed_pp: float = allowed_pp) -> bool:
            return fits(network.scores(_keep([unit], [share])), allowed_pp)

        shares[i] = _largest(good, 1.0, _STEPS)
        network.stays(_keep([unit], [shares[i]]))
    return tuple(shares)


class _Whole:
    """As ``Replay``, but for sites in any order, each network computed whole."""

    def __init__(self, graph: Graph, x_nchw: Tensor) -> None:
        self.graph, self.x_nchw = graph, x_nchw
        self.kept: dict[str, Tensor] = {}

    def go_to(self, sites: Sequence[str]) -> None:
        """Nothing has to be computed for it."""

    def scores(self, keep: Keep) -> Tensor:
        """The network's scores with what stays masked, and ``keep``."""
        return masked_scores(self.graph, self.x_nchw, {**self.kept, **keep})

    def stays(self, keep: Keep) -> None:
        """Mask this from now on."""
        self.kept.update(keep)


def _keep(units: Sequence[Unit], shares: Sequence[float]) -> dict[str, Tensor]:
    """Keep maps of the sites that lose anything."""
    found: dict[str, Tensor] = {}
    for unit, share in zip(units, shares, strict=True):
        if share > 0:
            found.update({site: cut.keep for site, cut in unit.cut(share).items()})
    return found


def _hottest(unit: Unit, score: Score) -> Tensor:
    """What each neuron of a unit scores at the class where it scores most (neurons,)."""
    return torch.cat([score(site).amax(0).flatten() for site in unit.sites])


def _mean(unit: Unit, score: Score) -> float:
    return float(_hottest(unit, score).mean())


def _share_below(unit: Unit, score: Score, threshold: float) -> float:
    return float((_hottest(unit, score) < threshold).double().mean())


def _largest(good: Callable[[float], bool], most: float, steps: int) -> float:
    """The largest number that is good, by halving from 0 to below ``most``."""
    low, high = 0.0, most
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
