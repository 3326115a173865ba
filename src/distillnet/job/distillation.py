"""What a distillation gives."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, class_work, inception_macs
from distillnet.cut.plan import Plan, removed_classes
from distillnet.engine import macs_in_c
from distillnet.evaluate import Evaluation, loss_interval_pp, loss_pp, worst_class_loss_pp
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.figures import Figures
from distillnet.job.front_points import FrontPoint, plot_run
from distillnet.job.layer_report import LayerReport
from distillnet.job.options import METHODS, SURGEON, Options
from distillnet.job.partition import Images
from distillnet.job.provenance import Provenance
from distillnet.models import Model
from distillnet.search import Found

__all__ = ["METHODS", "SURGEON", "Distillation", "Options", "peak_rss_mb"]


@dataclass(frozen=True, repr=False)
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
    images: Images  # who saw which
    provenance: Provenance  # the same, told by their content
    front: tuple["Distillation", ...] = ()
    sources: Mapping[str, str | None] = field(default_factory=dict)  # as in ``runs.Run``

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the distilled network's input."""
        height, width = self.found.graph.input.shape[1:]
        return self.model.preprocessing.with_input_size((height, width))

    def __repr__(self) -> str:
        return f"<Distillation of {self.figures}>"

    @property
    def figures(self) -> Figures:
        """What a person wants to know first."""
        return Figures(
            f"{self.model.name} for {', '.join(self.mission.names)}",
            self.mac_ratio,
            self.param_ratio,
            self.loss_ci95_pp,
            self.baseline.n,
            (self.baseline.accuracy, self.distilled.accuracy),
            {
                name: (share, self.distilled.per_class[name])
                for name, share in self.baseline.per_class.items()
            },
        )

    def frame(self) -> Any:
        """Accuracy by class as a pandas.DataFrame; see ``Figures.frame``."""
        return self.figures.frame()

    def plot(self, axes: Any = None) -> Any:
        """The front and the layers on two matplotlib axes, which are returned; see ``Run.plot``."""
        points = [done._point(own=done.plan is self.plan) for done in self.front or (self,)]
        budget = self.options.budget
        limit = None if budget.has_target else budget.max_loss_pp
        return plot_run(points, [asdict(layer) for layer in self.layers], limit, axes)

    def _point(self, *, own: bool) -> FrontPoint:
        expected, (low, high) = self.found.expected, self.loss_ci95_pp
        return FrontPoint(
            1 / self.work_ratio,
            expected.loss_pp,
            expected.uncertain_pp,
            self.loss_pp,
            low,
            high,
            own,
        )

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
    def mac_ratio_c(self) -> float | None:
        """Of what the C that ``export`` writes carries out: whole blocks of channels, skipped ones.

        None where the C engine lacks an operator of the network.
        """
        before, after = macs_in_c(self.graph), macs_in_c(self.compact)
        return before / after if before and after else None

    @property
    def mac_ratio_c_switchable(self) -> float | None:
        """The same with all weights kept, as a mission; None too where weights were refitted."""
        if self.options.method != "paper":
            return None
        before, after = macs_in_c(self.graph), macs_in_c(self.graph, self.plan)
        return before / after if before and after else None

    @property
    def inception_mac_ratio(self) -> float | None:
        """The paper's "speedup": MACs of GoogLeNet's inception modules, partial removal counted."""
        before, after = inception_macs(self.cost_before), inception_macs(self.cost_after)
        return before / after if before and after else None

    @property
    def work_ratio(self) -> float:
        """Original over distilled in what the search made small.

        MACs, and numbers that are written as so many more (``Options.element_cost``), which stand
        for time; of a network whose last layer has only the mission's outputs.
        """
        element = self.options.element_cost
        nothing = np.zeros(self.channels.count, dtype=bool)
        before = class_work(self.graph, self.channels, nothing, element=element)
        gone = removed_classes(self.channels, self.plan)
        splits = self.plan.splits
        after = class_work(self.found.graph, self.channels, gone, splits, element)
        return before / after

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


def peak_rss_mb() -> float | None:
    """The most memory this process has had resident, in MB; None where the system does not tell."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
