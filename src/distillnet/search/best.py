"""The best method: fewer channels, thinner layers, refitted, at the best input size.

A candidate is an input size and a number of MACs. Its channels and ranks follow from the orders of
elimination and the spectra of layers at one price (``allocation``); its weights from a closed-form
refit towards the original network (``compensation``).

The sizes share the orders, which are measured once. What candidates lose is a curve over their
input size and how far they are cut at it, which all of them tell together (``beliefs``), and the
next one is made where most is to be hoped for by it (``explorer``). A search makes five to fifteen
candidates.

*Judged twice.* All candidates are judged on the images that they were fitted on, which costs little
and flatters them. Some are judged by cross-validation, too, by networks that were fitted without
the images that judge; they tell how much the others are flattered. The one that is returned is
always among them. Of many images a part is enough to tell, and the middle of both counts.

*Whom to learn from.* A layer that sees a smaller image may be fitted to the original at its own
size or at the small one. Refitting GoogLeNet, uncut, at 160 pixels to what it says at 224 takes the
expected error on unseen images from 4.2 to 2.9 %; SqueezeNet's it raises from 4.4 to 6.2 %. So it
is tried where the first candidate is made, and done where it helps.

*Images that a network was trained on* (``known.knows``) hide a point of the loss at half the side,
and overstate it by a third of a point at 160 to 192 of 224 pixels (docs/results.md). Estimates are
corrected for that, and are less certain the smaller the input. Where a ratio is to be reached,
sizes are compared by divergence, which is not corrected.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.images.preprocessing import Size
from distillnet.search.beliefs import Key
from distillnet.search.budget import Budget, in_points
from distillnet.search.candidates import Workshop
from distillnet.search.explorer import TRIALS, Explorer
from distillnet.search.found import Found
from distillnet.search.reaching import Reach
from distillnet.search.settings import SearchSettings
from distillnet.search.sized import Sized
from distillnet.search.store import NOWHERE, NotKnown, Store

__all__ = ["Search", "open_search"]

Progress = Callable[[int, int], None]


class Search:
    """Finds the smallest network within a budget, and reuses its candidates for further budgets.

    Args:
        sizes: (H, W), the original network's own first, falling.
    """

    def __init__(self, workshop: Workshop, sizes: Sequence[Size], on_progress: Progress) -> None:
        self.workshop, self.sizes, self.on_progress = workshop, sizes, on_progress
        self.explorer: Explorer | None = None

    def __call__(self, budget: Budget) -> Found:
        """The network of fewest MACs whose losses on the search images are within the budget.

        With a target ratio instead, the one of least divergence that reaches it.

        Raises:
            InputError: the store is to be enough, and knows of nothing within the budget.
        """
        if budget.has_target:
            explorer: Explorer = Reach(self.workshop, budget, self.on_progress)
        else:
            explorer = self.explorer or Explorer(self.workshop, budget, self.on_progress)
            self.explorer = explorer
            explorer.spend(budget)
        chosen = self._chosen(explorer)
        self.on_progress(TRIALS - 1, TRIALS)
        found = explorer.finish(chosen)
        self.on_progress(TRIALS, TRIALS)
        return found

    def _chosen(self, explorer: Explorer) -> Key | None:
        try:
            if not explorer.broken_off:
                return explorer.choose(self.sizes)
        except NotKnown:
            self.workshop.store.only_known = False
        chosen = explorer.best_so_far()
        if chosen is None:
            raise InputError(
                f"found nothing within {in_points(explorer.budget.max_loss_pp)} so far; --resume "
                "goes on searching, a larger --max-loss allows more"
            )
        return chosen


def open_search(
    sized: Callable[[Size], Sized],
    sizes: Sequence[Size],
    mission: Mission,
    labels_n: Tensor,
    settings: SearchSettings | None = None,
    *,
    labels_statistics_n: Tensor | None = None,
    alike: bool = True,
    shares: Sequence[float] | None = None,
    graphs: Mapping[Size, Graph] | None = None,
    store: Store = NOWHERE,
    on_progress: Progress = lambda done, total: None,
) -> Search:
    """A search that may be asked for several budgets, one after the other.

    Args:
        sized: the network and its images at an input size; called for one size at a time.
        sizes: (H, W), the original network's own first, falling.
        labels_n: of the search images, positions in the mission.
        labels_statistics_n: of the statistics images; the last layer is fitted to them, too. None
            fits it to none, and leaves all judgement to the search images.
        alike: whether the statistics images are drawn from the same place as the search images, so
            that they may judge, too.
        shares: of the mission's classes, among the images that the loss is to be reported on: the
            loss is estimated for those; None takes them to be those of the images that judge.
        graphs: the network captured at the sizes; with them the original is asked once for all.
        store: where what takes long is looked up, and kept for a search that goes on. Where it is
            to be enough, the best of what it knows is returned.
    """
    fitted_n = labels_statistics_n
    if fitted_n is not None and alike:
        labels_n, fitted_n = torch.cat([fitted_n, labels_n]), None
    workshop = Workshop(
        sized, sizes[0], mission, labels_n, settings,
        labels_fitted_n=fitted_n, shares=shares, graphs=graphs, store=store,
    )  # fmt: skip
    return Search(workshop, sizes, on_progress)
