"""What a distillation is asked for, ``Options``, and what it gives, ``Distillation``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, inception_macs
from distillnet.cut.plan import Plan
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, loss_interval_pp, loss_pp, worst_class_loss_pp
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.layer_report import LayerReport
from distillnet.models import Model
from distillnet.search import SCORES, Budget, Found

__all__ = ["METHODS", "SURGEON", "Distillation", "Options"]

METHODS = ("best", "paper")
SURGEON = "surgeon"  # not a score of neurons, but an order in which channels go


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
        allowed = (*SCORES, *((SURGEON,) if self.method == "best" else ()))
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


@dataclass(frozen=True)
class Distillation:
    """A distilled network and all that is known of it.

    ``graph`` is the original; ``found.graph`` has the input size, and the weights, of the distilled
    one. ``front`` holds the networks that the search would have given for other budgets.
    """

    model: Model
    mission: Mission
    options: Options
    graph: Graph
    channels: Channels
    found: Found
    compact: Graph
    baseline: Evaluation
    distilled: Evaluation
    cost_before: Cost
    cost_after: Cost
    layers: tuple[LayerReport, ...]
    n_images: Mapping[str, int]
    unreadable: tuple[str, ...]  # a message for each image that was left out, path first
    seconds: Mapping[str, float]
    peak_rss_mb: float | None
    front: tuple["Distillation", ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the distilled network's input."""
        height, width = self.found.graph.input.shape[1:]
        return self.model.preprocessing.with_input_size((height, width))

    @property
    def plan(self) -> Plan:
        return self.found.plan

    @property
    def mac_ratio(self) -> float:
        """Original over distilled MACs, complete removal only: what every runtime realises."""
        return self.cost_before.macs / self.cost_after.macs

    @property
    def mac_ratio_with_partial(self) -> float:
        return self.cost_before.macs / self.cost_after.macs_with_partial

    @property
    def inception_mac_ratio(self) -> float | None:
        """The paper's "speedup": MACs of GoogLeNet's inception modules, partial removal counted."""
        before, after = inception_macs(self.cost_before), inception_macs(self.cost_after)
        return before / after if before and after else None

    @property
    def param_ratio(self) -> float:
        return self.cost_before.params / self.cost_after.params

    @property
    def loss_pp(self) -> float:
        return loss_pp(self.baseline, self.distilled)

    @property
    def worst_class_loss_pp(self) -> float:
        return worst_class_loss_pp(self.baseline, self.distilled)

    @property
    def loss_ci95_pp(self) -> tuple[float, float]:
        return loss_interval_pp(self.baseline, self.distilled)
