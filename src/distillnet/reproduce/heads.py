"""The layer that makes a network's scores."""

import numpy as np

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS, Node

__all__ = ["scoring_layer"]


def scoring_layer(graph: Graph) -> Node:
    """The layer that makes the scores; InputError where several do."""
    channels = analyse(graph)
    makers = [
        node
        for node in graph.nodes
        if node.op in LAYERS and np.isin(channels.of[node.name], channels.outputs).any()
    ]
    if len(makers) != 1:
        found = ", ".join(repr(node.name) for node in makers) or "no layer"
        raise InputError(
            f"found that {found} make the scores, expected one layer whose place a new one can take"
        )
    return makers[0]
