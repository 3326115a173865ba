"""The network as a list of nodes: capturing it, running it, and which channels go together."""

from distillnet.graph.graph import (
    Graph,
    GraphModule,
    Node,
    consumers,
    dependents,
    fast_layout,
    run,
)

__all__ = ["Graph", "GraphModule", "Node", "consumers", "dependents", "fast_layout", "run"]
