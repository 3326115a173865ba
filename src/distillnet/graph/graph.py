"""A network as a short list of named layers, and the one interpreter that runs it.

The graph is what every later step reads: channel groups, costs, statistics, search, surgery and
code generation. It is immutable; surgery returns a new one. All tensors are NCHW, feature vectors
are (N, F); shapes in the graph leave the batch out.

Legend of shape letters: N images, C channels in, M channels out, H and W height and width,
F features, G convolution groups, K kernel side.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from distillnet.graph.operators import APPLY, WEIGHTS, Node, constants_of

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

_MOST_AT_ONCE, _BYTES_AT_ONCE = 256, 2**29  # images on a GPU; of the largest value of all of them


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, the first being the network's input, and their parameters."""

    nodes: tuple[Node, ...]
    params: Mapping[str, Tensor]
    output: str

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def to(self, target: torch.device | torch.dtype | str) -> "Graph":
        """The same graph with its floating-point parameters on another device or of another type.

        Masks stay boolean.
        """
        if isinstance(target, torch.dtype):
            moved = {
                k: p.to(target) if p.is_floating_point() else p for k, p in self.params.items()
            }
        else:
            moved = {k: p.to(target) for k, p in self.params.items()}
        return replace(self, params=moved)


def consumers(graph: Graph) -> dict[str, list[Node]]:
    """The nodes that read each node's output, in execution order."""
    readers: dict[str, list[Node]] = {node.name: [] for node in graph.nodes}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers[name].append(node)
    return readers


def dependents(graph: Graph, name: str) -> set[str]:
    """``name`` and every node whose value changes when its value does."""
    changed = {name}
    for node in graph.nodes:
        if not changed.isdisjoint(node.inputs):
            changed.add(node.name)
    return changed


def _needed(graph: Graph, known: Collection[str], wanted: Collection[str]) -> list[Node]:
    """The nodes to compute, in order, for ``wanted`` when the values of ``known`` are given."""
    open_, needed = [name for name in wanted if name not in known], set()
    while open_:
        name = open_.pop()
        if name not in needed:
            needed.add(name)
            open_.extend(i for i in graph[name].inputs if i not in known)
    return [node for node in graph.nodes if node.name in needed]


def run(
    graph: Graph,
    known: Mapping[str, Tensor],
    wanted: Collection[str] | None = None,
    *,
    masks: Mapping[str, Tensor] | None = None,
    observe: Callable[[str, Tensor], None] | None = None,
) -> dict[str, Tensor]:
    """Compute the values of ``wanted`` (default: the output) from values already ``known``.

    Only the nodes between the two are executed, and a value is dropped after its last use.

    Args:
        known: values by node name, each (N, C, H, W) or (N, F); they are used as they are.
        wanted: names of the values to return.
        masks: by node name, (C, H, W) or (F,), 1 where a neuron is kept; multiplied onto the value
            of each computed node: the reference meaning of a removed neuron.
        observe: called with every computed node's name and (masked) value.

    Raises:
        KeyError: a name is not in the graph, or the input's value is needed and not known.
    """
    wanted = [graph.output] if wanted is None else list(wanted)
    order = _needed(graph, known, wanted)
    last_use = {name: i for i, node in enumerate(order) for name in node.inputs}
    values = dict(known)
    for i, node in enumerate(order):
        if node.op == "input":
            raise KeyError(f"the value of the network's input {node.name!r} is needed")
        params = {role: graph.params[name] for role, name in node.params.items()}
        y = APPLY[node.op](node, params, *(values[name] for name in node.inputs))
        if masks is not None and node.name in masks:
            y = y * masks[node.name]
        if observe is not None:
            observe(node.name, y)
        values[node.name] = y
        for name in node.inputs:
            if last_use[name] == i and name not in wanted:
                values.pop(name, None)
    return {name: values[name] for name in wanted}


def images_at_once(graph: Graph, device: torch.device, on_cpu: int) -> int:
    """How many images to compute together; more on a GPU, which waits between small pieces of work.

    ``on_cpu`` is what suits a processor's cache.

    >>> node = Node("x", "input", (), (3, 224, 224))
    >>> images_at_once(Graph((node,), {}, "x"), torch.device("cuda"), on_cpu=32)
    256
    """
    if device.type == "cpu":
        return on_cpu
    largest = 4 * max(math.prod(node.shape) for node in graph.nodes)
    return max(on_cpu, min(_MOST_AT_ONCE, _BYTES_AT_ONCE // largest))


def fast_layout(tensor: Tensor) -> Tensor:
    """The tensor in the memory layout that CPUs compute fastest in: channels last.

    Convolutions keep the layout of their input, so it is enough to bring the network's input into
    it. Measured on GoogLeNet: half the time of the default layout, most of it in max pooling.
    Masks (C, H, W) are brought into it too, else each multiplication would transpose.
    """
    if tensor.device.type != "cpu":
        return tensor
    if tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if tensor.ndim == 3:
        return tensor[None].contiguous(memory_format=torch.channels_last)[0]
    return tensor


def _with_constants(graph: Graph) -> Graph:
    """The graph with a parameter for every constant that a node makes as it runs."""
    nodes, params = [], dict(graph.params)
    for node in graph.nodes:
        roles = dict(node.params)
        for role, tensor in constants_of(
            node, {role: params[name] for role, name in roles.items()}
        ).items():
            roles[role] = f"{node.name}.{role}"
            params[roles[role]] = tensor
        nodes.append(replace(node, params=roles))
    return replace(graph, nodes=tuple(nodes), params=params)


class GraphModule(nn.Module):
    """A graph as an ordinary module (N, C, H, W) -> (N, classes), for torch.export and timing.

    Its weights are parameters, and all other tensors, also those that a graph makes as it runs, are
    buffers: so it can be trained, and be moved to another device.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        graph = _with_constants(graph)
        self._graph = replace(graph, params={})
        self._names: dict[str, str] = {}
        taken: set[str] = set()
        weights = {name for n in graph.nodes for role, name in n.params.items() if role in WEIGHTS}
        for name, tensor in graph.params.items():
            attr = re.sub(r"\W", "_", name)  # what a saved programme may call a tensor
            while attr in taken or hasattr(self, attr):  # "a.b" and "a_b" may both exist
                attr += "_"
            taken.add(attr)
            self._names[name] = attr
            # A programme is written tensor by tensor, which warns of those in another layout.
            whole = tensor.clone() if tensor.is_inference() else tensor.detach().contiguous()
            if name in weights:
                self.register_parameter(attr, nn.Parameter(whole))
            else:
                self.register_buffer(attr, whole)

    def forward(self, x: Tensor) -> Tensor:
        params = {name: getattr(self, attr) for name, attr in self._names.items()}
        graph = replace(self._graph, params=params)
        return run(graph, {graph.input.name: x})[graph.output]
