"""How a search makes its candidates, whatever the network and the images are."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillnet.search.evidence import Evidence

__all__ = ["Importance", "SearchSettings"]

Importance = Callable[[Evidence], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How candidates are cut, refitted and judged.

    Attributes:
        importance: by channel class (classes,), what goes last; None asks the surgeon.
        split: whether layers may be written as two thinner ones; see ``search.splits``.
        fit_labels: whether last layers are fitted to the labels, where all images have one.
        more_views: whether few images may be looked at from elsewhere, too; see ``search.views``.
        round_to: ranks are multiples of this, channels of each layer are rounded up to one.
        param_weight: how much parameters count beside MACs; see ``allocation.open_ledger``.
        element: MACs that take as long as writing one number; see ``cost.class_work``. 0 makes the
            network of fewest MACs, another value that of least time.
        seen: whether the network was trained on these images; None asks ``known.knows``.
    """

    importance: Importance | None = None
    split: bool = True
    fit_labels: bool = True
    more_views: bool = True
    round_to: int = 1
    param_weight: float = 0.1
    element: float = 0.0
    seen: bool | None = None
    seed: int = 0
