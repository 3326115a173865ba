"""What a distillation is asked for; checked without importing what does it."""

from dataclasses import dataclass, field

from distillnet.errors import InputError
from distillnet.search.budget import Budget

__all__ = ["METHODS", "SCORE_NAMES", "SURGEON", "Options"]

METHODS = ("best", "paper")
SURGEON = "surgeon"  # not a score of neurons, but an order in which channels go
SCORE_NAMES = ("heat", "variance", "sensitivity", "l1", "random")  # of search.SCORES


@dataclass(frozen=True)
class Options:
    """How to distill; all that changes the result beside the model and the images.

    ``score`` None is the method's own: the surgeon for best, heat for paper. ``element_cost`` tells
    how many MACs take as long as writing one number of a layer's output: 0 searches for the fewest
    MACs, another value for the least time. ``tune`` trains what is found for a while; see
    ``job.tuning``. ``seen`` tells whether the network was trained on the images; None
    finds out (``search.known.knows``).
    """

    budget: Budget = field(default_factory=Budget)
    method: str = "best"
    score: str | None = None
    keep_input_size: bool = False
    split: bool = True
    round_to: int = 1
    param_weight: float = 0.1
    element_cost: float = 0.0
    complete_only: bool = False
    tune: bool = False
    seen: bool | None = None
    seed: int = 0
    batch_size: int = 32
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"found the method {self.method!r}; expected {' or '.join(METHODS)}")
        allowed = (*SCORE_NAMES, *((SURGEON,) if self.method == "best" else ()))
        if self.score is not None and self.score not in allowed:
            raise InputError(
                f"found the score {self.score!r}; method {self.method} takes {', '.join(allowed)}"
            )
        if self.tune and self.method != "best":
            raise InputError(f"found --tune with the method {self.method}; only best takes it")
        if self.round_to < 1:
            raise InputError(f"found --round-to {self.round_to}; expected 1 or more")
        if not 0 <= self.param_weight < float("inf"):
            raise InputError(f"found --param-weight {self.param_weight}; expected 0 or more")
        if not 0 <= self.element_cost < float("inf"):
            raise InputError(f"found an element cost of {self.element_cost}; expected 0 or more")

    @property
    def score_name(self) -> str:
        """The score that is used."""
        return self.score or (SURGEON if self.method == "best" else "heat")
