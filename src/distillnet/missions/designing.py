"""From an atlas to a plan: orders, spectra and prices as in a search, without its images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.graph.operators import LAYERS
from distillnet.job.options import Options
from distillnet.missions.files import MissionAtlas
from distillnet.missions.records import Record, records_of
from distillnet.refit.compensation import with_biases
from distillnet.refit.teacher import refittable
from distillnet.search.allocation import Cut, Ledger, channel_plan, cut_to_size, open_ledger
from distillnet.search.evidence import MOST_COLUMNS, Evidence, View
from distillnet.search.orders import elimination_orders
from distillnet.search.splits import spectra

__all__ = ["Design", "check_classes", "evidence_of"]

_ROWS_PER_COLUMN = 2  # of samples that covariances are of, where there are as many
_LEAST_ROWS = 4000
_OF_STRANGERS = 0.1  # what is felt of them, beside what is felt of the mission


def check_classes(atlas: MissionAtlas, mission: Mission) -> None:
    """Raise InputError where the atlas lacks a class of the mission, or has too little of one."""
    for index, name in zip(mission.indices, mission.names, strict=True):
        if not atlas.samples.get(index):
            known = ", ".join(atlas.classes.names[i] for i in sorted(atlas.samples)[:12])
            raise InputError(
                f"the atlas {atlas.directory} has no images of {name} (class {index}); it has "
                f"{len(atlas.samples)} classes: {known}. Collect that class, too, and merge"
            )


def evidence_of(
    graph: Graph, atlas: MissionAtlas, classes: Sequence[int], strangers: Sequence[int] = ()
) -> Evidence:
    """What a search measures on a mission's images, from an atlas.

    Args:
        strangers: classes that are to be told from the mission's; what they feel counts, too.
    """
    needs = {n.name: atlas.need(n.name, n.shape[0], classes) for n in refittable(graph)}
    for name, need in needs.items() if strangers else ():
        need += _OF_STRANGERS * atlas.need(name, len(need), strangers)
    needs = {name: need.float() for name, need in needs.items()}
    views, spreads = [], {}
    for record in records_of(graph):
        if not record.layers:
            continue
        most = max(_LEAST_ROWS, _ROWS_PER_COLUMN * record.width)
        rows = atlas.rows(record, classes, most)
        rows -= rows.mean(0)
        if record.kind == "output":
            (layer,) = record.layers
            spreads[layer] = rows.T @ rows / len(rows)
            continue
        views.append(View(record.source, record.layers, _covariance(rows, graph, record)))
        for layer in record.layers:
            outputs = rows @ graph.params[graph[layer].params["weight"]].flatten(1).T
            spreads[layer] = outputs.T @ outputs / len(rows)
    views += _of_image(graph)
    return Evidence(tuple(views), needs, spreads, {})


def _covariance(rows: Tensor, graph: Graph, record: Record) -> Tensor:
    """Dense, or of independent channels where there are too many columns; float64."""
    if record.width <= MOST_COLUMNS:
        return (rows.T @ rows).double() / len(rows)
    per_channel = graph.params[graph[record.node].params["weight"]][0, 0].numel()
    blocks = rows.unflatten(1, (-1, per_channel))
    return torch.einsum("rca,rcb->cab", blocks, blocks).double() / len(rows)


def _of_image(graph: Graph) -> list[View]:
    """Views of layers that read the image: its channels stay, and nothing of it is recorded."""
    views = []
    for record in records_of(graph):
        if record.kind == "output":
            layer = graph[record.node]
            weight = graph.params[layer.params["weight"]]
            per_channel = weight[0, 0].numel() if weight.ndim > 1 else 1
            nothing = torch.zeros(weight.shape[1], per_channel, per_channel, dtype=torch.float64)
            views.append(View(layer.inputs[0], (layer.name,), nothing))
    return views


@dataclass(frozen=True)
class Design:
    """What a mission can be cut to: opened once, asked for a plan at any ratio.

    Attributes:
        evidence: of the mission.
        strangers: classes that networks are to tell from the mission's as well.
    """

    graph: Graph
    channels: Channels
    mission: Mission
    evidence: Evidence
    ledger: Ledger
    round_to: int
    uncut: Cost
    strangers: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        graph: Graph,
        channels: Channels,
        atlas: MissionAtlas,
        mission: Mission,
        options: Options,
        strangers: Sequence[int] = (),
    ) -> "Design":
        """The design of a mission's networks from an atlas.

        Args:
            strangers: see ``Design``.

        Raises:
            InputError: the atlas lacks a class.
        """
        check_classes(atlas, mission)
        evidence = evidence_of(graph, atlas, mission.indices, strangers)
        orders = elimination_orders(graph, channels, evidence)
        known = spectra(graph, channels, evidence) if options.split else ()
        widths = [node.shape[0] for node in graph.nodes if node.op in LAYERS]
        ledger = open_ledger(
            graph,
            channels,
            orders,
            mission.indices,
            options.param_weight,
            known,
            options.element_cost,
        )
        multiple = options.multiple_for(widths)
        uncut = cost(graph, channels)
        return cls(graph, channels, mission, evidence, ledger, multiple, uncut, tuple(strangers))

    def plan(self, ratio: float, of: Callable[[Cost], int] = lambda c: c.macs) -> Plan:
        """The plan of least damage that divides the MACs, or what ``of`` tells, by a ratio."""
        fitted, least = with_biases(self.graph), of(self.uncut) / ratio

        def enough(cut: Cut) -> bool:
            return of(cost(fitted, self.channels, self._plan(cut))) <= least

        return self._plan(
            cut_to_size(self.graph, self.channels, self.ledger, enough, self.round_to)
        )

    def _plan(self, cut: Cut) -> Plan:
        return channel_plan(self.graph, self.channels, cut, self.mission.indices)
