"""What a mission would cost, and what each class adds to it, before it is made.

The network is made as ``retarget`` makes it, and counted. What a class adds is told by a smaller
question, asked again without the class, or with another: at the price at which layers alone, split
and nothing else, cost as many MACs as the network does, how many would they cost then? Only spectra
change from one set of classes to the next, and these are quick to have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import class_macs, class_work, cost
from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.times import TimeTable, known_times
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.job.distill import Progress
from distillnet.job.distillation import Options
from distillnet.missions.designing import check_classes
from distillnet.missions.files import MissionAtlas, computed_from
from distillnet.missions.records import records_of
from distillnet.missions.retargeting import found_for
from distillnet.models import Model
from distillnet.refit.basis import factor, output_values
from distillnet.refit.teacher import refittable
from distillnet.search.allocation import open_ledger
from distillnet.search.splits import Spectrum, choose_splits

__all__ = ["Counted", "Quote", "counted", "quote"]

_BYTES = 4  # of a parameter
_HALVINGS = 40
_ROWS = 4000


@dataclass(frozen=True)
class Counted:
    """What a network costs: ``latency_ms`` by the table of times, at batch 1."""

    params: int
    macs: int
    bytes: int
    latency_ms: float


def counted(graph: Graph, channels: Channels, plan: Plan, options: Options) -> Counted:
    """What a plan leaves of a network, counted without carrying it out, in float32."""
    left = cost(graph, channels, plan)
    gone = removed_classes(channels, plan)
    work = class_work(graph, channels, gone, plan.splits, options.element_cost)
    table: TimeTable = options.times or known_times()
    return Counted(left.params, left.macs, _BYTES * left.params, 1000 * work * table.mac_s)


@dataclass(frozen=True)
class Quote:
    """What a mission would cost.

    Attributes:
        params, macs, bytes: of the network, its weights in float32.
        latency_ms: estimated from the table of times, at batch 1.
        mac_ratio, param_ratio: original over distilled.
        expected_loss_pp: by the atlas's samples.
        adds: by class of the mission, MACs that the others alone would do without.
        added: by class that was asked for, MACs that it would add to the mission.
        alike: pairs of classes by how much they share, 0 to 1, the most first.
    """

    classes: tuple[str, ...]
    params: int
    macs: int
    bytes: int
    latency_ms: float
    mac_ratio: float
    param_ratio: float
    expected_loss_pp: float
    adds: Mapping[str, int]
    added: Mapping[str, int]
    alike: tuple[tuple[str, str, float], ...]


def quote(
    atlas: MissionAtlas,
    model: Model,
    mission: Mission,
    options: Options | None = None,
    *,
    also: Mission | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Quote:
    """Quote a mission from an atlas.

    Args:
        also: classes of which is told what they would add.

    Raises:
        InputError: the atlas is of another network, or lacks a class.
    """
    options = options or Options()
    graph = capture_model(model)
    channels = analyse(graph)
    atlas.check_network(graph, model.weights_sha256, model.preprocessing)
    if also is not None:
        if both := set(also.indices) & set(mission.indices):
            raise InputError(f"class {min(both)} is to be added and in the mission; name it once")
        check_classes(atlas, also)
    found, _ = found_for(atlas, graph, channels, mission, options, on_progress)
    now, before = counted(found.graph, channels, found.plan, options), cost(graph, channels)
    extra = also or Mission((), ())
    names = dict(zip(mission.indices, mission.names, strict=True))
    names |= dict(zip(extra.indices, extra.names, strict=True))
    spectra = _Spectra(graph, channels, atlas, tuple(names), options)
    price = spectra.price(mission.indices, now.macs)
    here = spectra.macs(mission.indices, price)
    scale = now.macs / here
    adds = {}
    if len(mission) > 1:
        for index, name in zip(mission.indices, mission.names, strict=True):
            others = tuple(i for i in mission.indices if i != index)
            adds[name] = round(scale * (here - spectra.macs(others, price)))
    added = {
        name: round(scale * (spectra.macs((*mission.indices, index), price) - here))
        for index, name in zip(extra.indices, extra.names, strict=True)
    }
    pairs = [(names[a], names[b], spectra.alike(a, b)) for a, b in combinations(mission.indices, 2)]
    return Quote(
        mission.names,
        now.params,
        now.macs,
        now.bytes,
        now.latency_ms,
        before.macs / now.macs,
        before.params / now.params,
        found.expected.loss_pp,
        adds,
        added,
        tuple(sorted(pairs, key=lambda pair: -pair[2])),
    )


class _Spectra:
    """Second moments of each layer's outputs by class, and what sets of classes need of them."""

    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        atlas: MissionAtlas,
        classes: Sequence[int],
        options: Options,
    ) -> None:
        self.graph, self.channels, self.options = graph, channels, options
        self.atlas = atlas
        self.layers = [
            layer
            for layer in refittable(graph)
            if not np.isin(channels.of[layer.name], channels.outputs).any()
        ]
        names = {layer.name for layer in self.layers}
        self.needs = {
            index: {n.name: atlas.need(n.name, n.shape[0], [index]) for n in self.layers}
            for index in classes
        }
        self.moments: dict[int, dict[str, tuple[Tensor, Tensor]]] = {i: {} for i in classes}
        for record in records_of(graph):
            for index in classes if names & {*record.layers} else ():
                rows = atlas.rows(record, [index], _ROWS)
                for name in names & {*record.layers}:
                    y = self._outputs(name, rows) if record.kind == "patch" else rows
                    second = (y.T @ y).double() / len(y)
                    self.moments[index][name] = second, y.mean(0).double()

    def _outputs(self, layer: str, rows: Tensor) -> Tensor:
        params = self.graph[layer].params
        y = rows @ self.graph.params[params["weight"]].flatten(1).T
        return y + self.graph.params[params["bias"]] if "bias" in params else y

    def _of(self, classes: Sequence[int]) -> list[Spectrum]:
        spectra = []
        for layer in self.layers:
            n, name = len(classes), layer.name
            need = sum((self.needs[i][name] for i in classes), torch.zeros(())) / n
            second = sum((self.moments[i][name][0] for i in classes), torch.zeros(())) / n
            mean = sum((self.moments[i][name][1] for i in classes), torch.zeros(())) / n
            with computed_from(self.atlas):
                values = output_values(need, second - torch.outer(mean, mean))
            spectra.append(Spectrum(name, values.numpy()))
        return spectra

    def _macs(self, classes: Sequence[int], spectra: Sequence[Spectrum], price: float) -> int:
        options, outputs = self.options, tuple(sorted(classes))
        ledger = open_ledger(self.graph, self.channels, (), outputs, options.param_weight, spectra)
        gone = np.zeros(self.channels.count, dtype=bool)
        gone[ledger.others] = True
        splits = choose_splits(self.graph, self.channels, spectra, gone, price, ledger.per_param)
        return class_macs(self.graph, self.channels, gone, splits)

    def macs(self, classes: Sequence[int], price: float) -> int:
        """What layers that are split at a price cost."""
        return self._macs(classes, self._of(classes), price)

    def price(self, classes: Sequence[int], macs: int) -> float:
        """The lowest price at which they cost no more than that, in squared score units a MAC."""
        spectra, low, high = self._of(classes), -60.0, 20.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._macs(classes, spectra, 2.0**middle) <= macs:
                high = middle
            else:
                low = middle
        return float(2.0**high)

    def alike(self, one: int, two: int) -> float:
        """The cosine of two classes' second moments as both feel them, the mean over layers."""
        cosines = []
        for layer in self.layers:
            root = factor(self.needs[one][layer.name] + self.needs[two][layer.name], 1e-3)
            a, b = (root.T @ self.moments[i][layer.name][0] @ root for i in (one, two))
            cosines.append(float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-30)))
        return float(np.mean(cosines))
