"""The ways in which the paper's search for thresholds (section 6.1) can be read.

The paper says: for each layer the largest threshold, by binary search, under which the result of
the classification stays within the budget. It leaves open in which order layers are searched,
whether one may take what the others need, whether there is a threshold for each layer or a rule for
all, and among which classes an answer has to be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from distillnet.errors import InputError

__all__ = ["READINGS", "Reading", "reading_of"]


@dataclass(frozen=True)
class Reading:
    """One way to read it.

    Attributes:
        thresholds: "price", the same price for all layers (``search.paper``); "layer", a binary
            search for each layer behind the other; "quantile", one share of neurons for all layers;
            "activity", one multiple of each layer's mean output;
            "output", one output for all layers.
        order: of "layer": "front" to back, "back" to front, or by "saving", the largest first.
        shared: of "layer": whether the n-th of L layers leaves (L - n) / L of the budget to those
            that come after it; otherwise each takes all that is left.
        param_weight: of "price": what removing all parameters counts beside removing all MACs.
        open_set: whether answers are right or wrong among all classes of the network; otherwise
            among those of the mission.
    """

    thresholds: str
    order: str = ""
    shared: bool = False
    param_weight: float = 0.0
    open_set: bool = False


_LAYERS = {order: Reading("layer", order) for order in ("front", "back", "saving")}
_CLOSED = {
    "price": Reading("price"),
    "price-params": Reading("price", param_weight=3.0),
    **_LAYERS,
    **{f"{name}-shared": replace(reading, shared=True) for name, reading in _LAYERS.items()},
    "quantile": Reading("quantile"),
    "activity": Reading("activity"),
    "output": Reading("output"),
}
# By name; "-open" behind it counts errors among all classes.
READINGS: Mapping[str, Reading] = {
    **_CLOSED,
    **{f"{name}-open": replace(reading, open_set=True) for name, reading in _CLOSED.items()},
}


def reading_of(name: str) -> Reading:
    """The reading of a name; InputError where there is none.

    >>> reading_of("back-shared-open")
    Reading(thresholds='layer', order='back', shared=True, param_weight=0.0, open_set=True)
    """
    if name not in READINGS:
        raise InputError(f"found the reading {name!r}; expected one of {', '.join(READINGS)}")
    return READINGS[name]
