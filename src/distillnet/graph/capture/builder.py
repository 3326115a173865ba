"""Walking an exported programme: values as views, nodes, parameters, names.

Data movement (view, permute, slice, chunk, unsqueeze, ...) is not kept. Each value is a *view*: a
graph node and, for every element, the index of the element of that node's output that it shows. The
movement is applied to the indices. When an operator needs the tensor itself, the indices tell which
of a few canonical forms it is: the node as it is, channels gathered, a flattened map. So a channel
shuffle or a chunk becomes an exact channel index, whatever the way it was written, and
channels-last linear layers become 1x1 convolutions. Operators on parameters alone are computed
once, here.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from distillnet.errors import UnsupportedError
from distillnet.graph.capture.patterns import Lrn, match_lrn
from distillnet.graph.capture.sampling import Sample, samples
from distillnet.graph.graph import Graph
from distillnet.graph.operators import Node

__all__ = ["Builder", "View", "example_input", "holds_view", "is_range"]


@dataclass(frozen=True)
class View:
    """A value that shows elements of ``node``; index None means all of them, as they are."""

    node: str
    shape: tuple[int, ...]  # without the batch
    index: Tensor | None = None  # int64, of ``shape``: positions in the node's flattened output


def example_input(program: ExportedProgram) -> Tensor:
    """The programme's one image tensor (N, C, H, W), as exported; UnsupportedError without one."""
    user = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in user:
            value: Tensor = node.meta["val"]
            return value
    raise UnsupportedError("the network takes no tensor; expected one image tensor (N, C, H, W)")


class Builder:
    """Translates one exported programme; a class only for the state that all operators share."""

    def __init__(self, program: ExportedProgram, table: Mapping[str, Callable[..., Any]]) -> None:
        self.program = program
        self.table = table  # ATen name -> how it becomes nodes
        self.nodes: dict[str, Node] = {}
        self.params: dict[str, Tensor] = {}
        self.values: dict[fx.Node, Any] = {}  # View, Tensor (a constant), tuple or number
        signature = program.graph_signature
        self.sources = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.user_inputs = list(signature.user_inputs)
        self.owners = {_identity_of(t): k for k, t in reversed(program.state_dict.items())}
        self.kept: dict[tuple[Any, ...], str] = {}  # identity of each of params -> its name
        self.like = example_input(program)  # the type and device of constants made here
        self.current: fx.Node | None = None

    def build(self) -> Graph:
        graph = self.program.graph
        lrn = {node: match for node in graph.nodes if (match := match_lrn(node))}
        output: Any = next(node for node in graph.nodes if node.op == "output").args[0]
        if len(self.user_inputs) != 1 or len(output) != 1 or not isinstance(output[0], fx.Node):
            raise UnsupportedError(
                f"the network has {len(self.user_inputs)} inputs and {len(output)} outputs; "
                "expected one image tensor in and one score tensor (N, classes) out. Wrap it in a "
                "module that returns the scores alone."
            )
        # Only what the output depends on: what feeds a recognised pattern or nothing is left out.
        needed: set[fx.Node] = set()
        open_: list[fx.Node] = [output[0]]
        while open_:
            node = open_.pop()
            if node not in needed:
                needed.add(node)
                open_.extend([lrn[node].source] if node in lrn else node.all_input_nodes)
        self._placeholders()
        for node in graph.nodes:
            if node.op != "call_function" or node not in needed:
                continue
            self.current = node
            if node in lrn:
                self.values[node] = self._lrn(lrn[node])
            else:
                self.values[node] = self._translate(node)
        scores = self.values[output[0]]
        if not isinstance(scores, View) or len(scores.shape) != 1:
            found = tuple(output[0].meta["val"].shape)
            raise UnsupportedError(
                f"the network's output has shape {found} for {self.like.shape[0]} images and "
                f"{'follows' if isinstance(scores, View) else 'does not depend on'} them; "
                "expected scores (N, classes)"
            )
        result = self.tensor(scores)
        return Graph(tuple(self.nodes.values()), self.params, result.node)

    def _lrn(self, found: Lrn) -> View:
        x = self.tensor(self.values[found.source])
        where = None if found.positions is None else self.values[found.positions]
        if where is None or is_range(where.cpu(), found.attrs["channels"]):
            return self.emit("lrn", [x], found.attrs)
        return self.emit("lrn", [x], found.attrs, {"positions": where})

    def _placeholders(self) -> None:
        state = {**self.program.state_dict, **self.program.constants}
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in self.user_inputs:
                shape = tuple(node.meta["val"].shape[1:])
                self.nodes["input"] = Node("input", "input", (), shape)
                self.values[node] = View("input", shape)
            else:
                self.values[node] = state[self.sources[node.name]].detach()

    def _translate(self, node: fx.Node) -> Any:
        args = fx.node.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if node.target is operator.getitem:
            values: Any = args[0]
            return values[args[1]]
        if not holds_view((args, kwargs)):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        name = getattr(node.target, "_schema", None)
        handler = self.table.get(name.name.removeprefix("aten::").rstrip("_")) if name else None
        if handler is None:
            raise self.refuse("is not supported")
        try:
            value = handler(self, *args, **kwargs)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            # A form of the operator that its entry in the table was not written for.
            raise self.refuse(f"is used in a form that is not followed ({error})") from error
        shapes = node.meta["val"]
        if isinstance(value, View) and tuple(shapes.shape) != (self.like.shape[0], *value.shape):
            raise self.refuse("moves data between the images of a batch")
        return value

    def refuse(self, why: str) -> UnsupportedError:
        node = self.current
        assert node is not None
        kind = self._module()[1].rpartition(".")[2]
        layer = self.layer() or "the top level"
        return UnsupportedError(
            f"operator {node.target} in layer {layer!r} ({kind}) {why}. distillnet follows "
            "convolutional classification networks; replace the operator in that layer by one "
            "that ARCHITECTURE.md lists, or add it there."
        )

    def layer(self) -> str:
        """The module path of the current operator, for names and messages."""
        return self._module()[0].removeprefix("L['self'].").removeprefix("L__self___")

    def _module(self) -> tuple[str, str]:
        """Path and type of the module that the current operator belongs to."""
        assert self.current is not None
        stack = self.current.meta.get("nn_module_stack") or {}
        path, kind = next(reversed(stack.values()), ("", "?"))
        return path, str(kind)

    # --- building blocks for the operator table -----------------------------------------------

    def emit(
        self,
        op: str,
        inputs: list[View],
        attrs: dict[str, Any] | None = None,
        params: dict[str, Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> View:
        """Append a node; its shape is what the operator gave unless ``shape`` says otherwise."""
        assert self.current is not None
        if shape is None:
            value = self.current.meta["val"]
            value = value[0] if isinstance(value, tuple | list) else value
            shape = tuple(value.shape[1:])
        base = self._name(op, inputs, attrs or {}, params or {})
        name, i = base, 1
        while name in self.nodes:
            i += 1
            name = f"{base}#{i}"
        roles = {role: self._param(name, role, tensor) for role, tensor in (params or {}).items()}
        sources = tuple(view.node for view in inputs)
        self.nodes[name] = Node(name, op, sources, shape, attrs or {}, roles)
        return View(name, shape)

    def _name(
        self, op: str, inputs: list[View], attrs: dict[str, Any], params: dict[str, Tensor]
    ) -> str:
        """The module path of the layer's own parameters, else the path and the operator.

        An activation is named after what it follows: functional ones have no module of their own.
        """
        path = self.layer()
        if op == "act":
            return f"{inputs[0].node.partition(':')[0]}:{attrs['kind']}"
        for tensor in params.values():
            if (key := self.owners.get(_identity_of(tensor))) is not None:
                return key.rpartition(".")[0] or path or op
        return f"{path}:{op}" if path else op

    def _param(self, node: str, role: str, tensor: Tensor) -> str:
        """Keep a parameter once, however many layers share it."""
        name = self.kept.setdefault(_identity_of(tensor), f"{node}.{role}")
        self.params.setdefault(name, tensor)
        return name

    def tensor(self, view: View) -> View:
        """The view as a node of its own, in one of the canonical forms."""
        if view.index is None:
            return view
        base = self.nodes[view.node]
        size = math.prod(base.shape)
        index = view.index
        if index.shape == base.shape and is_range(index, size):
            return View(view.node, view.shape)
        if len(base.shape) == 3:
            if len(view.shape) == 3 and (parts := samples(index, base.shape)):
                return self._sampled(View(view.node, base.shape), parts)
            if len(view.shape) == 1:  # flattened, in whatever order
                flat = self.emit("flatten", [View(view.node, base.shape)], shape=(size,))
                return self.tensor(View(flat.node, view.shape, index))
        elif len(view.shape) == 1:
            return self._gather(View(view.node, base.shape), tuple(index.tolist()))
        elif len(view.shape) == 3 and view.shape[1:] == (1, 1):
            vector = self.tensor(View(view.node, view.shape[:1], index.flatten()))
            return self.emit("unflatten", [vector], shape=view.shape)
        raise self.refuse(
            f"needs a rearrangement of {view.node!r} from {base.shape} to {view.shape} that is "
            "neither a choice of channels, rows and columns nor a flattening"
        )

    def _gather(self, x: View, index: tuple[int, ...]) -> View:
        """Channels by their positions."""
        if index == tuple(range(x.shape[0])):
            return x
        return self.emit("gather", [x], {"index": index}, {}, (len(index), *x.shape[1:]))

    def _sampled(self, x: View, parts: tuple[Sample, ...]) -> View:
        """Parts of a map beside each other, in the order of their outputs."""
        made = []
        for part in parts:
            y = self._gather(x, part.channels)
            if (part.rows, part.columns) != tuple(tuple(range(side)) for side in x.shape[1:]):
                attrs = {"rows": part.rows, "columns": part.columns}
                shape = (len(part.channels), len(part.rows), len(part.columns))
                y = self.emit("sample", [y], attrs, {}, shape)
            made.append(y)
        if len(made) == 1:
            return made[0]
        order = [output for part in parts for output in part.outputs]
        joined = self.emit("cat", made, {}, {}, (len(order), *made[0].shape[1:]))
        return self._gather(joined, tuple(sorted(range(len(order)), key=order.__getitem__)))

    def settled(self, view: View) -> View:
        """The view of a node that holds its elements and no others, channels first or last."""
        if len(view.shape) != 3 or view.index is None:
            return self.tensor(view)
        try:
            return self.tensor(view)
        except UnsupportedError:
            return self.move(
                self.tensor(self.move(view, lambda i: i.movedim(-1, 1))),
                lambda i: i.movedim(1, -1),
            )

    def elements(self, view: View) -> Tensor:
        """The view's index, written out."""
        if view.index is not None:
            return view.index
        return torch.arange(math.prod(view.shape)).reshape(view.shape)

    def move(self, view: View, movement: Callable[[Tensor], Tensor]) -> View:
        """Apply a movement of data, written for a batch of one, to what the view shows."""
        index = movement(self.elements(view)[None])
        if index.shape[:1] != (1,):
            raise self.refuse("moves data between the images of a batch")
        return View(view.node, tuple(index.shape[1:]), index[0])

    def elementwise(
        self, view: View, op: str, attrs: dict[str, Any], params: dict[str, Tensor] | None = None
    ) -> View:
        """An operator on each element by itself: works on the node, so that any view carries over.

        With ``params`` per channel the view must be canonical.
        """
        base = self.nodes[view.node]
        if params:
            view = self.tensor(view)
        elif view.index is not None and view.index.numel() != math.prod(base.shape):
            view = self.settled(view)
        base = self.nodes[view.node]
        done = self.emit(op, [View(view.node, base.shape)], attrs, params, base.shape)
        return View(done.node, view.shape, view.index)


def holds_view(value: Any) -> bool:
    """Whether an activation is among nested arguments; all others are constants."""
    if isinstance(value, View):
        return True
    if isinstance(value, dict):
        return any(map(holds_view, value.values()))
    return isinstance(value, tuple | list) and any(map(holds_view, value))


def is_range(index: Tensor, size: int) -> bool:
    """Whether an index shows all of ``size`` elements in their order."""
    return index.numel() == size and torch.equal(index.flatten(), torch.arange(size))


def _identity_of(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors when they show the same memory in the same way."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
