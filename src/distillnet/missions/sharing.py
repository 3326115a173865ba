"""What processes that share a pass over images have gathered, brought together."""

import torch
import torch.distributed as dist

from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.missions.gathering import Gathered
from distillnet.missions.parts import gathered_from, tensors_of
from distillnet.models.ranks import Ranks

__all__ = ["gather"]


def gather(
    ranks: Ranks, mine: Gathered | None, graph: Graph, channels: Channels, samples: int
) -> Gathered | None:
    """What all processes have gathered together, in the first; None in others."""
    if ranks.count == 1:
        return mine
    sent = None if mine is None else tensors_of(mine)
    boxes: list[dict[str, torch.Tensor] | None] = [None] * ranks.count
    dist.gather_object(sent, boxes if ranks.first else None)
    total = None
    for box in boxes:
        if box is not None:
            more = gathered_from(box, graph, channels)
            if total is None:
                total = more
            else:
                total.add(more, samples)
    return total
