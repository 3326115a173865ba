"""The network as a list of nodes: capturing it, running it, and which channels go together."""

from distillnet.graph.graph import (
    Graph,
    GraphModule,
    Node,
    consumers,
    dependents,
    fast_layout,
    images_at_once,
    run,
)

__all__ = [
    "Graph",
    "GraphModule",
    "Node",
    "consumers",
    "dependents",
    "fast_layout",
    "images_at_once",
    "run",
]
