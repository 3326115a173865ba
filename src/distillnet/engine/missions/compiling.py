"""From graphs and plans to a program and its missions, in either form.

*Compact*: what is left of a network after surgery, its own masks being the only mission.
*Switchable*: all weights stay, and each plan becomes a mission that is chosen call by call.
*Loadable*: switchable, and every site has a mask, so that missions that are not known yet can be
loaded later (``blocks``).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import insert_masks
from distillnet.engine.missions.layout import Layout, layout_of
from distillnet.engine.missions.refits import (
    LayerRefit,
    columns_of,
    graph_of_mission,
    in_program_order,
    may_be_refitted,
)
from distillnet.engine.need import Keeps, with_masks_behind, with_needed_masks
from distillnet.engine.ordering import with_like_bitmaps_together
from distillnet.engine.placing import compile_graph
from distillnet.engine.spans import computed_macs
from distillnet.engine.steps import MissionBits, Program, Refit
from distillnet.engine.taps import alive_neurons, layers_with_dead_inputs, live_taps
from distillnet.errors import UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS

__all__ = [
    "MissionPlan",
    "Prepared",
    "compile_compact",
    "compile_loadable",
    "compile_switchable",
    "macs_in_c",
    "prepare_compact",
    "prepare_switchable",
]

Keep = NDArray[np.bool_]
_SLOT = ":mission"


@dataclass(frozen=True, eq=False)
class MissionPlan:
    """A mission: its name in C, its plan, and the names of the plan's outputs.

    Attributes:
        refits: by layer, parameters that are the mission's own; all others are shared.
    """

    name: str
    plan: Plan
    classes: tuple[str, ...]
    refits: Mapping[str, LayerRefit] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A graph as it is compiled, for programs of other numbers than float32: see ``int8``.

    Attributes:
        graph: with masks where nobody needs a neuron, and filters in the program's order.
        missions: by slot, which is a mask of the graph.
        graphs: of each mission, its keep maps in the masks, and its own parameters.
    """

    graph: Graph
    missions: tuple[MissionBits, ...]
    graphs: tuple[Graph, ...]


def compile_compact(
    graph: Graph, name: str, classes: Sequence[str], *, by_rows: bool = False
) -> tuple[Program, MissionBits]:
    """A compact network's program, and its only mission.

    Args:
        by_rows: run steps by turns, row by row, where that makes the arena smaller.

    Raises:
        UnsupportedError: an operator that the engine has no kernel for.
    """
    done, bits = _compact(graph, name, classes, by_rows=by_rows)
    return done.program, bits


def prepare_compact(graph: Graph, name: str, classes: Sequence[str]) -> Prepared:
    """What ``compile_compact`` compiles."""
    done, bits = _compact(graph, name, classes)
    return _prepared(done, [bits])


def _compact(
    graph: Graph, name: str, classes: Sequence[str], *, by_rows: bool = False
) -> tuple["_Compiled", MissionBits]:
    outputs = tuple(range(len(classes)))
    done = _compile(graph, [_own_masks(graph)], by_rows=by_rows)
    return done, MissionBits(name, done.keeps[0], outputs, tuple(classes), done.lives[0])


def compile_switchable(
    graph: Graph, missions: Sequence[MissionPlan], *, by_rows: bool = False
) -> tuple[Program, tuple[MissionBits, ...]]:
    """A whole network's program, and a mission for each plan; their ranks are ignored.

    Args:
        by_rows: as for ``compile_compact``.

    Raises:
        UnsupportedError: an operator that the engine has no kernel for.
    """
    done, bits = _shared(graph, missions, by_rows=by_rows)
    return done.program, bits


def prepare_switchable(graph: Graph, missions: Sequence[MissionPlan]) -> Prepared:
    """What ``compile_switchable`` compiles."""
    return _prepared(*_shared(graph, missions))


def _prepared(done: "_Compiled", missions: Sequence[MissionBits]) -> Prepared:
    graphs = tuple(graph_of_mission(done.graph, done.program, m) for m in missions)
    return Prepared(done.graph, tuple(missions), graphs)


def _shared(
    graph: Graph, missions: Sequence[MissionPlan], *, by_rows: bool = False
) -> tuple["_Compiled", tuple[MissionBits, ...]]:
    plans = [mission.plan for mission in missions]
    sites = {s for plan in plans for s, keep in plan.keep.items() if not bool(keep.all())}
    layers = {name for mission in missions for name in mission.refits}
    return _switchable(graph, missions, sites, layers, by_rows=by_rows)


def compile_loadable(
    graph: Graph, missions: Sequence[MissionPlan], *, by_rows: bool = False
) -> tuple[Program, tuple[MissionBits, ...], Layout]:
    """As ``compile_switchable``, with what has to be known to make missions for it later.

    Raises:
        UnsupportedError: an operator that the engine has no kernel for, or a network with masks of
            its own, which no later mission knows of.
    """
    if own := _own_masks(graph):
        raise UnsupportedError(
            f"found a mask in the network itself, {next(iter(own))!r}; expected a network of whole "
            "layers, for missions that are loaded later. Export without --loadable"
        )
    sites = {*analyse(graph).sites} - {graph.output}
    layers = {node.name for node in graph.nodes if node.op in LAYERS}
    done, bits = _switchable(graph, missions, sites, layers, by_rows=by_rows)
    site_of = {f"{site}{_SLOT}": site for site in (*sites, graph.output)}
    scores, n_scores = site_of[f"{graph.output}{_SLOT}"], graph[graph.output].shape[0]
    layout = layout_of(done.program, done.graph, site_of, done.orders, scores, n_scores)
    return done.program, bits, layout


def _switchable(
    graph: Graph,
    missions: Sequence[MissionPlan],
    sites: Collection[str],
    layers: Collection[str] = (),
    *,
    by_rows: bool = False,
) -> tuple["_Compiled", tuple[MissionBits, ...]]:
    n_scores = graph[graph.output].shape[0]
    own = _own_masks(graph)
    keeps: list[dict[str, Keep]] = []
    outputs: list[tuple[int, ...]] = []
    for plan in (mission.plan for mission in missions):
        outputs.append(tuple(range(n_scores)) if plan.outputs is None else tuple(plan.outputs))
        chosen = {f"{s}{_SLOT}": _numpy(keep) for s, keep in plan.keep.items() if s in sites}
        if graph.output not in sites:  # a mission computes its own scores only
            scores = np.zeros(n_scores, bool)
            scores[list(outputs[-1])] = True
            chosen[f"{graph.output}{_SLOT}"] = scores
        keeps.append(own | chosen)
    done = _compile(_with_slots(graph, sites), keeps, layers, by_rows=by_rows)
    return done, tuple(
        MissionBits(m.name, done.keeps[i], outputs[i], m.classes, done.lives[i],
                    _refits(done, m.refits))
        for i, m in enumerate(missions)
    )  # fmt: skip


def _refits(done: "_Compiled", refits: Mapping[str, LayerRefit]) -> dict[str, Refit]:
    """By slot; UnsupportedError where the layer is one whose weights are the same for all."""
    steps = {step.name: step for step in done.program.steps}
    found = {}
    for name, refit in refits.items():
        step = steps.get(name)
        if step is None or step.slot is None or not may_be_refitted(step, done.graph):
            raise UnsupportedError(
                f"a mission has weights of its own for {name!r}, where code for several missions "
                "cannot have them; expected a convolution of one group or a linear layer. Export "
                "the mission as C of its own"
            )
        size, source = step.settings["kernel"], step.settings["source"]
        columns = columns_of(step, done.graph, done.orders)
        found[step.slot] = in_program_order(refit, size, source, done.orders.get(name), columns)
    return found


def macs_in_c(graph: Graph, plan: Plan | None = None) -> int | None:
    """Multiply-adds that the C of a network carries out for an image; None where it cannot.

    Of the network as it is, its own masks skipped; with a ``plan``, of the whole network with this
    plan as a mission. Whole blocks of channels count, at all places that one of them needs.
    """
    try:
        if plan is None:
            program, bits = compile_compact(graph, _SLOT, ())
        else:
            program, (bits,) = compile_switchable(graph, [MissionPlan(_SLOT, plan, ())])
    except UnsupportedError:
        return None
    return computed_macs(program, bits.keep, bits.live)


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A program and its graph, by mission keep maps and live taps by slot, and orders by node."""

    program: Program
    graph: Graph
    keeps: tuple[dict[str, Keep], ...]
    lives: tuple[dict[str, Keep], ...]
    orders: Mapping[str, NDArray[np.int64]]


def _compile(
    graph: Graph,
    missions: Sequence[Keeps],
    layers: Collection[str] = (),
    *,
    by_rows: bool = False,
) -> _Compiled:
    """A program for missions given by keep maps by mask node, with slots behind ``layers``."""
    graph, missions = with_needed_masks(graph, missions)
    graph = with_masks_behind(graph, {*layers, *layers_with_dead_inputs(graph, missions)})
    graph, missions, orders = with_like_bitmaps_together(graph, missions)
    program = compile_graph(graph, by_rows=by_rows)
    bits = tuple(
        {name: keep.reshape(program.slots[name].shape) for name, keep in keeps.items()
         if name in program.slots}
        for keeps in missions
    )  # fmt: skip
    lives = tuple(_live(graph, program, keeps) for keeps in missions)
    return _Compiled(program, graph, bits, lives, orders)


def _live(graph: Graph, program: Program, keeps: Keeps) -> dict[str, Keep]:
    alive = alive_neurons(graph, keeps)
    found = {}
    for step in program.steps:
        if step.kernel == "conv" and step.slot is not None:
            live = live_taps(step, graph[step.name], alive)
            if live is not None:
                found[step.slot] = live
    return found


def _numpy(keep: Tensor) -> Keep:
    bits: Keep = keep.detach().cpu().bool().numpy()
    return bits


def _own_masks(graph: Graph) -> dict[str, Keep]:
    """The masks that are in a graph, whatever the mission."""
    return {
        node.name: _numpy(graph.params[node.params["keep"]])
        for node in graph.nodes
        if node.op == "mask"
    }


def _with_slots(graph: Graph, sites: Collection[str]) -> Graph:
    """The graph with a mask after each of ``sites``, and one after the scores."""
    return insert_masks(
        graph,
        {
            node.name: (f"{node.name}{_SLOT}", torch.ones(node.shape, dtype=torch.bool))
            for node in graph.nodes
            if node.name in sites or node.name == graph.output
        },
    )
