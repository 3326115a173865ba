"""Channels of a later mission in an order that suits it, as far as its own weights reach.

Code computes blocks of channels, in the order that suited the missions at hand when it was
exported. What another mission keeps is scattered over all blocks. Where the layers that make and
read some channels have weights of the mission's own, it may have these channels stand elsewhere:
those that it keeps come first, so that whole blocks are left out.
"""

from collections.abc import Collection, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from distillnet.engine.missions.layout import Layout, SlotLayout
from distillnet.engine.ordering import orders_of_mission
from distillnet.graph import Graph

__all__ = ["arranged_slots"]

Order = NDArray[np.int64]


def arranged_slots(
    layout: Layout, graph: Graph, kept: Mapping[str, NDArray[np.bool_]], own: Collection[str]
) -> tuple[SlotLayout, ...]:
    """The slots of a layout in the orders of a mission.

    Args:
        graph: the original network, which the code was made of.
        kept: by layer, bool (M,), the channels that the mission keeps.
        own: the layers whose weights are the mission's own.
    """
    code = {
        slot.layer: np.array(slot.order)
        for slot in layout.slots
        if slot.layer is not None and slot.order is not None
    }
    wanted = {
        name: np.argsort(~keep, kind="stable")
        for name, keep in kept.items()
        if name in own and not keep.all()
    }
    if _slots(layout, graph, orders_of_mission(graph, code, {}, ())) != layout.slots:
        return layout.slots  # something stands in an order that the layers do not tell
    return _slots(layout, graph, orders_of_mission(graph, code, wanted, own))


def _slots(layout: Layout, graph: Graph, orders: Mapping[str, Order]) -> tuple[SlotLayout, ...]:
    """The slots under other orders of the nodes' channels."""
    result = []
    for slot in layout.slots:
        node = slot.layer or slot.site
        if node is None:
            result.append(slot)
            continue
        columns = None
        if slot.layer is not None:
            source = graph[graph[slot.layer].inputs[0]]
            if slot.source != source.shape[0]:  # a linear layer that reads a map as it lies
                source = graph[source.inputs[0]]
            columns = _listed(orders.get(source.name))
        order = _listed(orders.get(node))
        result.append(msgspec.structs.replace(slot, order=order, columns=columns))
    return tuple(result)


def _listed(order: Order | None) -> list[int] | None:
    return None if order is None else order.tolist()
