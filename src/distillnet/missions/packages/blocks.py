"""A verified package as a block of bytes for compiled code (``engine.missions.blocks``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import insert_masks, mask
from distillnet.engine import LayerRefit, Layout, mission_block
from distillnet.engine.missions.arranging import arranged_slots
from distillnet.engine.need import needed_neurons
from distillnet.engine.taps import inputs_of_layers
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.missions.packages.changes import changed_layers
from distillnet.missions.packages.device import Opened
from distillnet.missions.packages.graphs import Base
from distillnet.missions.packages.package import graph_of, keep_of
from distillnet.refit.compensation import with_biases

__all__ = ["block_of_package"]

_Keep = NDArray[np.bool_]
_MORE = 1.25  # times the least bytes that a block may have to be computed more quickly


def block_of_package(package: Opened, layout: Layout, base: Base | None = None) -> bytes:
    """The block of a package whose signature holds, for code of this layout.

    Args:
        base: the shared weights. A package that changes weights is told by them; for any other,
            they tell which inputs of layers are always zero, which the code then leaves out.

    Raises:
        InputError: it is of another network or input size, splits layers, changes weights and there
            is no ``base``, has a score for the unknown, or no number that code would take.
    """
    contents, what = package.contents, package.path
    if contents.weights_sha256 != layout.original_sha256:
        raise InputError(
            f"{what} is a mission of {contents.model}, whose weights are not those of this code; "
            "expected one of the same network. Export the folder from a run of it"
        )
    how = contents.preprocessing
    if (len(how.mean), *how.input_size) != layout.input:
        raise InputError(
            f"{what} takes images of {(len(how.mean), *how.input_size)}, this code of "
            f"{layout.input}; expected one input size for all missions. Export the folder at it"
        )
    if contents.unknown:
        raise InputError(
            f"{what} has a score for unknown images; expected one for each of its classes, for "
            "code that several missions share. Pack it without --with-unknown, or export the run "
            "as C of its own"
        )
    changed = [name for name, tensor in contents.tensors.items() if tensor.coding != "same"]
    if changed and base is None:
        raise InputError(
            f"{what} changes {len(changed)} tensors of the shared weights; name these with --base, "
            "the file that `mission pack --base` wrote"
        )
    if contents.serial < 1:
        raise InputError(
            f"{what} has the number 0, and code takes larger numbers than the one that it holds; "
            "pack it with --serial 1 or more"
        )
    keep = keep_of(contents)

    def block(**more: Any) -> bytes:
        return mission_block(
            layout,
            contents.name,
            [c.name for c in contents.classes],
            [c.index for c in contents.classes],
            {site: bits.numpy() for site, bits in keep.items()},
            contents.serial,
            **more,
        )

    if base is None:
        return block()
    small = graph_of(contents, base, str(what))
    sites = {node.name for node in base.graph.nodes}
    outputs = tuple(c.index for c in contents.classes)
    plan = Plan({site: bits for site, bits in keep.items() if site in sites}, outputs)
    refits = changed_layers(base.graph, plan, small.params, str(what))
    flow = _flow(base.graph, plan)
    least = block(**_told(layout, base.graph, flow, refits))
    if all(refit.weight is None for refit in refits.values()):
        return least
    # Words for channels that stand scattered over shared blocks may take more than the weights.
    brought = _with_weights(layout, base.graph, flow, refits)
    quick = block(**_told(layout, base.graph, flow, brought))
    return quick if len(quick) <= _MORE * len(least) else least


@dataclass(frozen=True, eq=False)
class _Flow:
    """By layer, which inputs are not always zero, and which outputs anybody needs."""

    alive: Mapping[str, _Keep]
    needs: Mapping[str, _Keep]


def _flow(graph: Graph, plan: Plan) -> _Flow:
    scores = torch.zeros(graph[graph.output].shape, dtype=torch.bool)
    scores[list(plan.outputs or ())] = True
    masked = mask(graph, plan)
    masked = insert_masks(masked, {masked.output: (":scores", scores)})
    keeps = {n.name: masked.params[n.params["keep"]].numpy() for n in masked.nodes
             if n.op == "mask"}  # fmt: skip
    return _Flow(inputs_of_layers(masked, keeps), needed_neurons(masked, keeps))


def _told(
    layout: Layout, graph: Graph, flow: _Flow, refits: Mapping[str, LayerRefit]
) -> dict[str, Any]:
    """What ``mission_block`` is told of a mission's parameters."""
    own = {layer for layer, refit in refits.items() if refit.weight is not None}
    kept = {layer: _channels(flow.needs[layer]) for layer in own}
    return {
        "refits": refits,
        "alive": flow.alive,
        "needs": flow.needs,
        "slots": arranged_slots(layout, graph, kept, own),
    }


def _with_weights(
    layout: Layout, graph: Graph, flow: _Flow, refits: Mapping[str, LayerRefit]
) -> dict[str, LayerRefit]:
    """The refits, and the shared weights of all other layers of which the mission needs a part."""
    whole, found = with_biases(graph), dict(refits)
    for slot in layout.slots:
        name = slot.layer
        if name is None or (flow.needs[name].all() and flow.alive[name].all()):
            continue
        shared = {role: whole.params[p].numpy() for role, p in whole[name].params.items()}
        bias = found[name].bias if name in found else shared["bias"]
        if name not in found or found[name].weight is None:
            found[name] = LayerRefit(bias, shared["weight"])
    return found


def _channels(needed: _Keep) -> _Keep:
    channels: _Keep = np.any(needed.reshape(len(needed), -1), axis=1)
    return channels
