"""Where to spend the budget: which channels go and which layers are split, at one price for all.

A plan of least damage for its MACs minimises  sum of damages + price x MACs (and, at a small share,
parameters). MACs are products of a layer's inputs and outputs, so what one order of elimination
saves depends on the others: each order is followed to its own best while the others stand, in turn,
until none moves. Then each layer is split, or not, at the same price (``splits``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.cut.cost import node_overhead
from distillnet.cut.plan import Plan
from distillnet.cut.thin import Split
from distillnet.graph import Graph
from distillnet.graph.channels import MAKES_SCORES, Channels
from distillnet.graph.operators import LAYERS
from distillnet.search.orders import Order
from distillnet.search.splits import Spectrum, choose_splits

__all__ = ["Cut", "Ledger", "channel_plan", "cut_to_size", "open_ledger", "round_up"]

_TURNS = 8
_HALVINGS = 40

Gone = NDArray[np.bool_]
# Where layers may be split, channels are paid this much of the price for the MACs that they save:
# most of those MACs, ranks save, too. What is beside them, writing numbers, ranks do not save.
_CHANNELS = 0.1


@dataclass(frozen=True)
class Cut:
    """Channel classes that go, bool (classes,), and the layers that are split."""

    gone: Gone
    splits: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True)
class Ledger:
    """What each order can save, as matrices over layers: quick to ask again and again.

    Attributes:
        layers: names (L,).
        each: (L,) MACs of one filter on one input channel, plus its share for parameters.
        outputs, inputs: by order (L, n), how often a class is among a layer's outputs and inputs,
            in the order of going. Grouped layers have all their cost on the outputs.
        all_outputs, all_inputs: (L,) the counts with nothing of any order gone.
    """

    orders: tuple[Order, ...]
    layers: tuple[str, ...]
    each: NDArray[np.float64]
    outputs: tuple[NDArray[np.float64], ...]
    inputs: tuple[NDArray[np.float64], ...]
    all_outputs: NDArray[np.float64]
    all_inputs: NDArray[np.float64]
    others: NDArray[np.int64]  # classes that only make scores outside the mission
    beside: NDArray[np.float64]  # (classes,) what a channel's going saves beside products
    spectra: tuple[Spectrum, ...] = ()  # of layers that may be split
    element: float = 0.0  # what writing one number costs
    per_param: float = 0.0  # MACs that one parameter counts for


def open_ledger(
    graph: Graph,
    channels: Channels,
    orders: Sequence[Order],
    outputs: tuple[int, ...],
    param_weight: float = 0.0,
    spectra: Sequence[Spectrum] = (),
    element: float = 0.0,
) -> Ledger:
    """The ledger of a graph and its orders, for the mission's ``outputs``.

    With a ``param_weight`` of 1, all parameters together cost as much as all MACs together. Late
    layers hold most parameters and take little time; at a small price they shrink, too. ``element``
    is what writing a number costs, in MACs; see ``cost.class_work``.
    """
    others = np.setdiff1d(channels.outputs, channels.outputs[list(outputs)])
    others = np.array([c for c in others if channels.pinned[c] == MAKES_SCORES], dtype=np.int64)
    layers = [node for node in graph.nodes if node.op in LAYERS]
    out, into = (np.zeros((len(layers), channels.count)) for _ in range(2))
    kernels, places = np.zeros(len(layers)), np.zeros(len(layers))
    for i, node in enumerate(layers):
        weight = graph.params[node.params["weight"]]
        kernels[i], places[i] = math.prod(weight.shape[2:]), math.prod(node.shape[1:])
        np.add.at(out[i], channels.of[node.name], 1.0)
        if node.attrs.get("groups", 1) == 1:
            np.add.at(into[i], channels.of[node.inputs[0]], 1.0)
        else:  # a group goes as a whole: its inputs are no factor of their own
            kernels[i] *= weight.shape[1]
    n_out, n_in = out.sum(1), np.where(into.any(1), into.sum(1), 1.0)
    macs, params = (kernels * places * n_out * n_in).sum(), (kernels * n_out * n_in).sum()
    per_param = param_weight * macs / params
    each = kernels * (places + per_param)
    out[:, others] = 0.0
    beside = np.zeros(channels.count)
    for node in graph.nodes:
        per_number = node_overhead(node, node.shape[0], element)
        np.add.at(beside, channels.of[node.name], per_number * math.prod(node.shape[1:]))
    return Ledger(
        tuple(orders),
        tuple(node.name for node in layers),
        each,
        tuple(out[:, order.classes] for order in orders),
        tuple(into[:, order.classes] for order in orders),
        out.sum(1),
        n_in,
        others,
        beside,
        tuple(spectra),
        element,
        float(per_param),
    )


def cut_to_size(
    graph: Graph,
    channels: Channels,
    ledger: Ledger,
    fits: Callable[[Cut], bool],
    round_to: int = 1,
) -> Cut:
    """What to cut at the lowest price at which ``fits`` holds.

    ``fits`` tells whether so much is cut; it must hold whenever more is. If it never does, all is
    cut that can be. Ranks are multiples of ``round_to``, channels are rounded up to one.
    """

    def at(price: float) -> Cut:
        gone = _at_price(channels, ledger, price)
        gone = round_up(graph, channels, ledger.orders, gone, round_to)
        known, per_param, element = ledger.spectra, ledger.per_param, ledger.element
        return Cut(
            gone, choose_splits(graph, channels, known, gone, price, per_param, round_to, element)
        )

    low, high = -60.0, 20.0  # powers of two, in squared score units per MAC
    best = at(2.0**high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        cut = at(2.0**middle)
        if fits(cut):
            best, high = cut, middle
        else:
            low = middle
    return best


def _at_price(channels: Channels, ledger: Ledger, price: float) -> Gone:
    reached = [0] * len(ledger.orders)
    share = _CHANNELS if ledger.spectra else 1.0
    n_out, n_in = ledger.all_outputs.copy(), ledger.all_inputs.copy()
    for _ in range(_TURNS):
        before = list(reached)
        for i, order in enumerate(ledger.orders):
            outputs, inputs = ledger.outputs[i], ledger.inputs[i]
            n_out += outputs[:, : reached[i]].sum(1)
            n_in += inputs[:, : reached[i]].sum(1)
            # Exact where no layer has classes of this order on both sides.
            saving = (ledger.each * n_in) @ outputs + (ledger.each * n_out) @ inputs
            saving = share * saving + ledger.beside[order.classes]
            saved = np.concatenate([[0.0], np.cumsum(saving)])
            counts, damages = order.counts, order.damages
            reached[i] = int(counts[np.argmin(damages - price * saved[counts])])
            n_out -= outputs[:, : reached[i]].sum(1)
            n_in -= inputs[:, : reached[i]].sum(1)
        if reached == before:
            break
    gone = np.zeros(channels.count, dtype=bool)
    gone[ledger.others] = True
    for order, count in zip(ledger.orders, reached, strict=True):
        gone[order.classes[:count]] = True
    return gone


def round_up(
    graph: Graph, channels: Channels, orders: Sequence[Order], gone: Gone, multiple: int
) -> Gone:
    """Bring channels back, the last to go first, until each layer has a multiple or all of its own.

    Where one set of channels belongs to several layers of different widths this may take several
    rounds; it ends, since channels only come back.
    """
    gone = gone.copy()
    if multiple <= 1:
        return gone
    rank = np.full(channels.count, -1)  # the later it went, the higher
    for order in orders:
        rank[order.classes] = np.arange(len(order.classes))
    layers = [channels.of[node.name] for node in graph.nodes if node.op in LAYERS]
    moved = True
    while moved:
        moved = False
        for classes in layers:
            out = np.unique(classes[gone[classes] & (rank[classes] >= 0)])
            missing = -int((~gone[classes]).sum()) % multiple
            back = out[np.argsort(-rank[out])][:missing]
            if len(back):
                gone[back], moved = False, True
    return gone


def channel_plan(
    graph: Graph, channels: Channels, cut: Cut, outputs: tuple[int, ...] | None
) -> Plan:
    """The plan that removes whole channel classes and splits layers."""
    keep, gone = {}, cut.gone
    for site in channels.sites:
        stays = ~gone[channels.of[site]]
        if not stays.all():
            shape = graph[site].shape
            bits = torch.from_numpy(stays).reshape(-1, *[1] * (len(shape) - 1))
            keep[site] = bits.expand(shape).contiguous()
    return Plan(keep, outputs, cut.splits)
