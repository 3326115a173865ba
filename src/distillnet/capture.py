"""From a PyTorch module to our graph, by way of torch.export.

torch.export gives a flat list of ATen operators. Three things make a graph of it:

* Data movement (view, permute, slice, chunk, unsqueeze, ...) is not kept. Each value is a *view*:
  a graph node and, for every element, the index of the element of that node's output that it
  shows. The movement is applied to the indices. When an operator needs the tensor itself, the
  indices tell which of a few canonical forms it is: the node as it is, channels gathered, a
  flattened map. So a channel shuffle or a chunk becomes an exact channel index, whatever the way
  it was written, and channels-last linear layers become 1x1 convolutions.
* Operators on parameters alone are computed once, here.
* Batch norm is folded into the convolution before it where that is its only reader, and becomes a
  per-channel affine layer elsewhere.

An operator that is not in the table below is refused by name. Nothing is guessed.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from distillnet.errors import UnsupportedError
from distillnet.graph import Graph, run
from distillnet.operators import Node

__all__ = ["capture"]

# Kept whole by the export, for they are one layer to us; everything else becomes core ATen.
_WHOLE = frozenset(
    {
        "adaptive_avg_pool2d",
        "conv2d",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "layer_norm",
        "linear",
        "max_pool2d",
        "mish",
        "silu",
        "softplus",
    }
)


@dataclass(frozen=True)
class _View:
    """A value that shows elements of ``node``; index None means all of them, as they are."""

    node: str
    shape: tuple[int, ...]  # without the batch
    index: Tensor | None = None  # int64, of ``shape``: positions in the node's flattened output


def capture(module: nn.Module, input_size: tuple[int, int], *, channels: int = 3) -> Graph:
    """The graph of a classification CNN in inference mode; the module is left as it was.

    Args:
        module: (N, channels, H, W) -> (N, classes).
        input_size: (H, W).

    Raises:
        UnsupportedError: torch.export or distillnet cannot follow the module; the message names
            the operator, the layer and the way out.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    >>> [node.op for node in capture(net, (8, 8)).nodes]
    ['input', 'conv', 'act', 'flatten', 'linear']
    """
    modes = {part: part.training for part in module.modules()}
    for part in modes:  # not module.eval(), which loaded programmes refuse
        part.training = False
    try:
        program = _export(module, (channels, *input_size))
        with torch.no_grad():
            graph = _Builder(program).build()
            graph = _fold_batch_norm(graph)
            _verify(module, graph, program)
    finally:
        for part, was_training in modes.items():  # a part may be frozen in a net that is not
            part.training = was_training
    return graph


def _export(module: nn.Module, shape: tuple[int, ...]) -> ExportedProgram:
    table = torch.export.default_decompositions()
    for overload in list(table.keys()):
        if overload._schema.name.removeprefix("aten::").rstrip("_") in _WHOLE:
            del table[overload]
    tensors = [*module.parameters(), *module.buffers()]
    reference = next((t for t in tensors if t.is_floating_point()), torch.zeros(1))
    # Two images, so that a batch dimension is never mistaken for one of size 1; a programme that
    # was exported with a fixed batch of 1 accepts only that.
    for batch in (2, 1):
        x = torch.zeros(batch, *shape, dtype=reference.dtype, device=reference.device)
        try:
            return torch.export.export(module, (x,)).run_decompositions(table)
        except Exception as error:  # noqa: BLE001 - torch.export raises whatever the model raises
            failure = error
    reason = str(failure).strip().splitlines()[0] if str(failure).strip() else repr(failure)
    raise UnsupportedError(
        f"torch.export cannot follow this network at input (N, {', '.join(map(str, shape))}): "
        f"{type(failure).__name__}: {reason[:300]}. Expected a CNN without data-dependent control "
        "flow that takes one image tensor; check --input-size, or rewrite what the message names."
    ) from failure


def _verify(module: nn.Module, graph: Graph, program: ExportedProgram) -> None:
    """Compare graph and module on noise: a translation that is off must never go unnoticed."""
    example = _example(program)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(example.shape, generator=generator).to(example.device, example.dtype)
    want, got = module(x), run(graph, {graph.input.name: x})[graph.output]
    if not isinstance(want, Tensor):
        raise UnsupportedError(
            f"the network returns a {type(want).__name__}; expected one score tensor (N, classes). "
            "Wrap it in a module that returns the scores alone."
        )
    scale = want.abs().max().clamp_min(1e-6)
    difference = ((got - want).abs().max() / scale).item()
    # Not a comparison with NaN: a network that is NaN on noise is the models module's to refuse.
    if difference > 1e-3:
        raise UnsupportedError(
            f"the captured graph differs from the network by {difference:.2g} of its output's "
            "range; expected agreement to rounding. This is a bug in distillnet: please report "
            "the network's definition."
        )


def _example(program: ExportedProgram) -> Tensor:
    user = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in user:
            value: Tensor = node.meta["val"]
            return value
    raise UnsupportedError("the network takes no tensor; expected one image tensor (N, C, H, W)")


class _Builder:
    """Translates one exported programme; a class only for the state that all operators share."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.nodes: dict[str, Node] = {}
        self.params: dict[str, Tensor] = {}
        self.values: dict[fx.Node, Any] = {}  # _View, Tensor (a constant), tuple or number
        signature = program.graph_signature
        self.sources = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.user_inputs = list(signature.user_inputs)
        self.owners = {_identity_of(t): k for k, t in reversed(program.state_dict.items())}
        self.kept: dict[tuple[Any, ...], str] = {}  # identity of each of params -> its name
        self.like = _example(program)  # the type and device of constants made here
        self.current: fx.Node | None = None

    def build(self) -> Graph:
        graph = self.program.graph
        lrn = {node: match for node in graph.nodes if (match := _match_lrn(node))}
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
                open_.extend([lrn[node][0]] if node in lrn else node.all_input_nodes)
        self._placeholders()
        for node in graph.nodes:
            if node.op != "call_function" or node not in needed:
                continue
            self.current = node
            if node in lrn:
                source, attrs = lrn[node]
                self.values[node] = self.emit("lrn", [self.tensor(self.values[source])], attrs)
            else:
                self.values[node] = self._translate(node)
        scores = self.values[output[0]]
        if not isinstance(scores, _View) or len(scores.shape) != 1:
            found = tuple(output[0].meta["val"].shape)
            raise UnsupportedError(
                f"the network's output has shape {found} for {self.like.shape[0]} images and "
                f"{'follows' if isinstance(scores, _View) else 'does not depend on'} them; "
                "expected scores (N, classes)"
            )
        result = self.tensor(scores)
        return Graph(tuple(self.nodes.values()), self.params, result.node)

    def _placeholders(self) -> None:
        state = {**self.program.state_dict, **self.program.constants}
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in self.user_inputs:
                shape = tuple(node.meta["val"].shape[1:])
                self.nodes["input"] = Node("input", "input", (), shape)
                self.values[node] = _View("input", shape)
            else:
                self.values[node] = state[self.sources[node.name]].detach()

    def _translate(self, node: fx.Node) -> Any:
        args = fx.node.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.values[n])
        if node.target is operator.getitem:
            values: Any = args[0]
            return values[args[1]]
        if not _holds_view((args, kwargs)):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        name = getattr(node.target, "_schema", None)
        handler = _TABLE.get(name.name.removeprefix("aten::").rstrip("_")) if name else None
        if handler is None:
            raise self.refuse("is not supported")
        try:
            value = handler(self, *args, **kwargs)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            # A form of the operator that its entry in the table was not written for.
            raise self.refuse(f"is used in a form that is not followed ({error})") from error
        shapes = node.meta["val"]
        if isinstance(value, _View) and tuple(shapes.shape) != (self.like.shape[0], *value.shape):
            raise self.refuse("moves data between the images of a batch")
        return value

    def refuse(self, why: str) -> UnsupportedError:
        node = self.current
        assert node is not None
        layer = self.layer() or "the top level"
        return UnsupportedError(
            f"operator {node.target} in layer {layer!r} {why}. distillnet follows convolutional "
            "classification networks; replace the operator in that layer by one that "
            "ARCHITECTURE.md lists, or add it there."
        )

    def layer(self) -> str:
        """The module path of the current operator, for names and messages."""
        assert self.current is not None
        stack = self.current.meta.get("nn_module_stack") or {}
        path = next(reversed(stack.values()))[0] if stack else ""
        return path.removeprefix("L['self'].").removeprefix("L__self___")

    # --- building blocks for the operator table -----------------------------------------------

    def emit(
        self,
        op: str,
        inputs: list[_View],
        attrs: dict[str, Any] | None = None,
        params: dict[str, Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> _View:
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
        return _View(name, shape)

    def _name(
        self, op: str, inputs: list[_View], attrs: dict[str, Any], params: dict[str, Tensor]
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

    def tensor(self, view: _View) -> _View:
        """The view as a node of its own, in one of the canonical forms."""
        if view.index is None:
            return view
        base = self.nodes[view.node]
        size = math.prod(base.shape)
        index = view.index
        if index.shape == base.shape and _is_range(index, size):
            return _View(view.node, view.shape)
        if len(base.shape) == 3:
            _, height, width = base.shape
            if len(view.shape) == 3 and view.shape[1:] == (height, width):
                first = index[:, :1, :1] // (height * width)
                plane = torch.arange(height * width).reshape(1, height, width)
                if torch.equal(index, first * height * width + plane):
                    picked = tuple(first.flatten().tolist())
                    return self.emit(
                        "gather", [_View(view.node, base.shape)], {"index": picked}, {}, view.shape
                    )
            if len(view.shape) == 1:  # flattened, in whatever order
                flat = self.emit("flatten", [_View(view.node, base.shape)], shape=(size,))
                return self.tensor(_View(flat.node, view.shape, index))
        elif len(view.shape) == 1:
            picked = tuple(index.tolist())
            return self.emit(
                "gather", [_View(view.node, base.shape)], {"index": picked}, {}, view.shape
            )
        elif len(view.shape) == 3 and view.shape[1:] == (1, 1):
            vector = self.tensor(_View(view.node, view.shape[:1], index.flatten()))
            return self.emit("unflatten", [vector], shape=view.shape)
        raise self.refuse(
            f"needs a rearrangement of {view.node!r} from {base.shape} to {view.shape} that is "
            "neither a choice of channels nor a flattening"
        )

    def elements(self, view: _View) -> Tensor:
        """The view's index, written out."""
        if view.index is not None:
            return view.index
        return torch.arange(math.prod(view.shape)).reshape(view.shape)

    def move(self, view: _View, movement: Callable[[Tensor], Tensor]) -> _View:
        """Apply a movement of data, written for a batch of one, to what the view shows."""
        index = movement(self.elements(view)[None])
        if index.shape[:1] != (1,):
            raise self.refuse("moves data between the images of a batch")
        return _View(view.node, tuple(index.shape[1:]), index[0])

    def elementwise(
        self, view: _View, op: str, attrs: dict[str, Any], params: dict[str, Tensor] | None = None
    ) -> _View:
        """An operator on each element by itself: works on the node, so that any view carries over.

        With ``params`` per channel the view must be canonical.
        """
        base = self.nodes[view.node]
        if params or (view.index is not None and view.index.numel() != math.prod(base.shape)):
            view = self.tensor(view)
            base = self.nodes[view.node]
        done = self.emit(op, [_View(view.node, base.shape)], attrs, params, base.shape)
        return _View(done.node, view.shape, view.index)


def _holds_view(value: Any) -> bool:
    if isinstance(value, _View):
        return True
    if isinstance(value, dict):
        return any(map(_holds_view, value.values()))
    return isinstance(value, tuple | list) and any(map(_holds_view, value))


def _is_range(index: Tensor, size: int) -> bool:
    return index.numel() == size and torch.equal(index.flatten(), torch.arange(size))


def _identity_of(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors when they show the same memory in the same way."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def _pair(value: Any) -> tuple[int, int]:
    values = [value] * 2 if isinstance(value, int) else list(value)
    return (values[0], values[-1])


# --- the operator table: ATen name -> how it becomes nodes -------------------------------------


def _conv(
    b: _Builder,
    x: _View,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _View:
    if not isinstance(weight, Tensor) or weight.ndim != 4 or len(x.shape) != 3:
        raise b.refuse("is not a two-dimensional convolution with constant weights")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    x = b.tensor(x)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
        padding = [t // 2 for t in total]
        if any(t % 2 for t in total):  # the odd pixel goes to the right and to the bottom
            (top, left), (bottom, right) = padding, [t - t // 2 for t in total]
            channels, height, width = x.shape
            shape = (channels, height + top + bottom, width + left + right)
            sides = {"pad": (left, right, top, bottom), "value": 0.0}
            x, padding = b.emit("pad", [x], sides, shape=shape), 0
    attrs = {
        "stride": _pair(stride),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "groups": groups,
    }
    return b.emit("conv", [x], attrs, params)


def _convolution(
    b: _Builder,
    x: _View,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> _View:
    if transposed:
        raise b.refuse("is a transposed convolution, which classification networks do not have")
    return _conv(b, x, weight, bias, stride, padding, dilation, groups)


def _linear(b: _Builder, x: _View, weight: Tensor, bias: Tensor | None = None) -> _View:
    if not isinstance(weight, Tensor):
        raise b.refuse("multiplies two activations (attention), which distillnet does not follow")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    if len(x.shape) == 1:
        return b.emit("linear", [b.tensor(x)], {}, params)
    # On a channels-last map (H, W, C) a linear layer is a 1x1 convolution.
    last = b.tensor(b.move(x, lambda i: i.movedim(-1, 1))) if len(x.shape) == 3 else None
    if last is None:
        raise b.refuse(f"works on a tensor (N, {x.shape}) that is neither features nor a map")
    params["weight"] = weight[:, :, None, None]
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    y = b.emit("conv", [last], attrs, params, (weight.shape[0], *last.shape[1:]))
    return b.move(y, lambda i: i.movedim(1, -1))


def _addmm(b: _Builder, bias: Tensor, x: _View, weight: Tensor, **scales: Any) -> _View:
    if scales or not isinstance(weight, Tensor):
        raise b.refuse("is not a linear layer with constant weights")
    return _linear(b, x, weight.t(), bias)


def _batch_norm(
    b: _Builder,
    x: _View,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    *rest: Any,
) -> tuple[_View, None, None]:
    eps = rest[-1]
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    return (b.elementwise(x, "affine", {}, {"scale": scale, "shift": shift}), None, None)


def _layer_norm(
    b: _Builder,
    x: _View,
    normalized: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> _View:
    if len(normalized) != 1 or normalized[0] != x.shape[-1] or len(x.shape) not in (1, 3):
        raise b.refuse(f"normalises over {list(normalized)}; only the channels are followed")
    width = normalized[0]
    ones = torch.ones(width, dtype=b.like.dtype, device=b.like.device)
    params = {
        "weight": ones if weight is None else weight,
        "bias": ones * 0 if bias is None else bias,
    }
    if len(x.shape) == 1:
        return b.emit("layer_norm", [b.tensor(x)], {"eps": eps}, params, x.shape)
    first = b.tensor(b.move(x, lambda i: i.movedim(-1, 1)))
    y = b.emit("layer_norm", [first], {"eps": eps}, params, first.shape)
    return b.move(y, lambda i: i.movedim(1, -1))


def _activation(kind: str) -> Callable[..., _View]:
    def handler(b: _Builder, x: _View, *args: Any, **kwargs: Any) -> _View:
        if _holds_view((args, kwargs)) or any(isinstance(a, Tensor) for a in args):
            raise b.refuse("takes a tensor besides its input")
        attrs = {"kind": kind, "args": tuple(args), "kwargs": tuple(kwargs.items())}
        return b.elementwise(x, "act", attrs)

    return handler


def _elu(
    b: _Builder, x: _View, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> _View:
    if input_scale != 1:
        raise b.refuse("scales its input")
    y: _View = _activation("elu")(b, x, alpha)
    return y if scale == 1 else _MUL(b, y, scale)  # SELU scales its output


def _per_channel(b: _Builder, constant: Any, shape: tuple[int, ...]) -> Tensor | None:
    """A constant operand as one value per channel of ``shape``, or None where it is not that."""
    channels = shape[0]
    value = torch.as_tensor(constant, dtype=b.like.dtype, device=b.like.device)
    if value.numel() == 1:
        return value.reshape(1).expand(channels).clone()
    try:
        full = value.expand(1, *shape)[0]
    except RuntimeError:
        return None
    per_channel = full.reshape(channels, -1)
    same = torch.equal(per_channel, per_channel[:, :1].expand_as(per_channel))
    return per_channel[:, 0].clone() if same else None


def _arithmetic(
    op: str, constant: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Callable[..., _View]:
    """Addition or multiplication: with a constant a per-channel affine, else of two activations.

    ``constant`` gives (scale, shift) for the operand's value per channel.
    """

    def handler(b: _Builder, x: Any, y: Any, alpha: int = 1) -> _View:
        if isinstance(y, _View):
            if alpha != 1:
                y = _MUL(b, y, alpha)
            if isinstance(x, _View):
                return _binary(b, op, x, y)
            x, y = y, x
        elif alpha != 1:
            y = y * alpha
        if isinstance(y, Tensor) and y.dtype == torch.bool and op == "mul":
            keep = y.expand(1, *x.shape)[0].contiguous()
            return b.emit("mask", [b.tensor(x)], {}, {"keep": keep})
        base = b.nodes[x.node].shape
        order = b.elements(x).flatten()
        if _is_range(order.sort().values, math.prod(base)):
            # All of the node, seen in some order (channels-last): the constant in the node's order.
            constants = torch.as_tensor(y, dtype=b.like.dtype, device=b.like.device)
            y = constants.expand(1, *x.shape).flatten()[order.argsort().to(constants.device)]
            y = y.reshape(1, *base)
        else:
            x = b.tensor(x)
            base = x.shape
        value = _per_channel(b, y, base)
        if value is None:
            raise b.refuse("combines a map with a constant that varies over positions")
        scale, shift = constant(value)
        params = {"scale": scale, "shift": shift}
        done = b.emit("affine", [_View(x.node, base)], {}, params, base)
        return _View(done.node, x.shape, x.index)

    return handler


def _binary(b: _Builder, op: str, x: _View, y: _View) -> _View:
    if x.index is not None and y.index is not None and x.shape == y.shape:
        same = b.nodes[x.node].shape == b.nodes[y.node].shape and torch.equal(x.index, y.index)
        if same:  # two maps seen in the same way, e.g. both channels-last
            shape = b.nodes[x.node].shape
            done = b.emit(op, [_View(x.node, shape), _View(y.node, shape)], shape=shape)
            return _View(done.node, x.shape, x.index)
    x, y = (b.tensor(_unexpanded(v, other)) for v, other in ((x, y), (y, x)))
    broadcast = len(x.shape) == len(y.shape) and all(
        i == j or 1 in (i, j) for i, j in zip(x.shape, y.shape, strict=True)
    )
    if not broadcast:
        raise b.refuse(f"combines shapes {x.shape} and {y.shape}")
    return b.emit(op, [x, y])


def _unexpanded(view: _View, other: _View) -> _View:
    """A gate (C, 1, 1) that was expanded to a map by hand, as it was before."""
    index = view.index
    if other.index is not None or index is None or index.ndim != 3:
        return view
    first = index[:, :1, :1]
    if not torch.equal(index, first.expand_as(index)):
        return view
    return _View(view.node, (len(index), 1, 1), first)


def _sub(b: _Builder, x: Any, y: Any, alpha: int = 1) -> _View:
    return _ADD(b, x, _MUL(b, y, -1.0) if isinstance(y, _View) else -y, alpha)


def _div(b: _Builder, x: Any, y: Any) -> _View:
    if not isinstance(x, _View) or isinstance(y, _View):
        raise b.refuse("divides by an activation, which distillnet does not follow")
    return _MUL(b, x, 1.0 / y)


def _cat(b: _Builder, tensors: list[_View], dim: int = 0) -> _View:
    assert b.current is not None
    if dim % b.current.meta["val"].ndim != 1:
        raise b.refuse(f"joins along dimension {dim}; only channels (1) are followed")
    if not all(isinstance(t, _View) for t in tensors):
        raise b.refuse("joins an activation and a constant (a class token)")
    return b.emit("cat", [b.tensor(t) for t in tensors])


def _max_pool(
    b: _Builder,
    x: _View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> _View:
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "ceil_mode": ceil_mode,
    }
    return b.emit("max_pool", [b.tensor(x)], attrs)


def _avg_pool(
    b: _Builder,
    x: _View,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> _View:
    attrs = {
        "kernel_size": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor,
    }
    return b.emit("avg_pool", [b.tensor(x)], attrs)


def _adaptive_avg_pool(b: _Builder, x: _View, size: Any) -> _View:
    size = _pair(size)
    if size == (1, 1):
        return b.emit("mean", [b.tensor(x)], {"keepdim": True})
    return b.emit("adaptive_avg_pool", [b.tensor(x)], {"output_size": size})


def _adaptive_max_pool(b: _Builder, x: _View, size: Any) -> tuple[_View, None]:
    return (b.emit("adaptive_max_pool", [b.tensor(x)], {"output_size": _pair(size)}), None)


def _amax(b: _Builder, x: _View, dim: Any = (), keepdim: bool = False) -> _View:
    dims = sorted(d % (len(x.shape) + 1) for d in dim)
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"takes the maximum over dimensions {dims}; only height and width are")
    attrs = {"output_size": (1, 1)}
    y = b.emit("adaptive_max_pool", [b.tensor(x)], attrs, shape=(x.shape[0], 1, 1))
    return y if keepdim else b.move(y, lambda i: i.flatten(1))


def _mean(
    b: _Builder, x: _View, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> _View:
    dims = sorted(d % (len(x.shape) + 1) for d in dim or [])
    if len(x.shape) == 3 and dims == [1, 2]:  # channels-last: over H and W
        x, dims = b.move(x, lambda i: i.movedim(-1, 1)), [2, 3]
        if keepdim:
            raise b.refuse("keeps the pooled dimensions of a channels-last map")
    elif len(x.shape) == 2 and dims == [2] and not keepdim:  # of a map with its pixels in a row
        sides = b.nodes[x.node].shape[1:]
        x, dims = b.move(x, lambda i: i.reshape(*i.shape[:2], *sides)), [2, 3]
    if dims != [2, 3] or len(x.shape) != 3:
        raise b.refuse(f"averages over dimensions {dims}; only height and width are followed")
    return b.emit("mean", [b.tensor(x)], {"keepdim": keepdim})


def _pad(b: _Builder, x: _View, pad: list[int], value: float = 0.0) -> _View:
    if len(pad) > 4 and any(pad[4:]):
        raise b.refuse("pads channels")
    return b.emit("pad", [b.tensor(x)], {"pad": tuple(pad[:4]), "value": float(value)})


def _movement(name: str) -> Callable[..., _View]:
    function = getattr(torch.ops.aten, name)

    def handler(b: _Builder, x: _View, *args: Any, **kwargs: Any) -> _View:
        return b.move(x, lambda index: function(index, *args, **kwargs))

    return handler


def _reshape(b: _Builder, x: _View, *_: Any) -> _View:
    assert b.current is not None
    batch, *rest = b.current.meta["val"].shape
    if batch != b.like.shape[0]:
        raise b.refuse("merges the batch with another dimension")
    return b.move(x, lambda i: i.reshape(1, *rest))


def _expand(b: _Builder, x: _View, shape: list[int], **_: Any) -> _View:
    return b.move(x, lambda i: i.expand(1, *shape[1:]))


def _split(name: str) -> Callable[..., list[_View]]:
    function = getattr(torch.ops.aten, name)

    def handler(b: _Builder, x: _View, *args: Any, **kwargs: Any) -> list[_View]:
        parts = function(b.elements(x)[None], *args, **kwargs)
        return [_View(x.node, tuple(part.shape[1:]), part[0]) for part in parts]

    return handler


def _identity(b: _Builder, x: _View, *_: Any, **__: Any) -> _View:
    return x


_ADD = _arithmetic("add", lambda value: (torch.ones_like(value), value))
_MUL = _arithmetic("mul", lambda value: (value, torch.zeros_like(value)))

_TABLE: dict[str, Callable[..., Any]] = {
    "conv2d": _conv,
    "convolution": _convolution,
    "linear": _linear,
    "addmm": _addmm,
    "mm": lambda b, x, weight: _linear(b, x, weight.t() if isinstance(weight, Tensor) else weight),
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "native_layer_norm": lambda b, *args: (_layer_norm(b, *args), None, None),
    "relu": _activation("relu"),
    "hardtanh": _activation("hardtanh"),
    "relu6": lambda b, x: _activation("hardtanh")(b, x, 0.0, 6.0),
    "hardswish": _activation("hardswish"),
    "hardsigmoid": _activation("hardsigmoid"),
    "silu": _activation("silu"),
    "sigmoid": _activation("sigmoid"),
    "gelu": _activation("gelu"),
    "tanh": _activation("tanh"),
    "elu": _elu,
    "leaky_relu": _activation("leaky_relu"),
    "mish": _activation("mish"),
    "softplus": _activation("softplus"),
    "clamp": _activation("clamp"),
    "abs": _activation("abs"),
    "add": _ADD,
    "sub": _sub,
    "mul": _MUL,
    "div": _div,
    "cat": _cat,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": lambda b, *args: (_max_pool(b, *args), None),
    "avg_pool2d": _avg_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "amax": _amax,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "constant_pad_nd": _pad,
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "expand": _expand,
    "permute": _movement("permute"),
    "transpose": _movement("transpose"),
    "unsqueeze": _movement("unsqueeze"),
    "squeeze": lambda b, x, *_: _reshape(b, x),  # without a dimension it would take the batch's
    "select": _movement("select"),
    "slice": _movement("slice"),
    "flip": _movement("flip"),
    "index": _movement("index"),
    "index_select": _movement("index_select"),
    "split": _split("split"),
    "split_with_sizes": _split("split_with_sizes"),
    "clone": _identity,
    "alias": _identity,
    "detach": _identity,
    "dropout": _identity,
    "contiguous": _identity,
}


# --- patterns and folding ------------------------------------------------------------------------


def _match_lrn(node: fx.Node) -> tuple[fx.Node, dict[str, Any]] | None:
    """Recognise torch.nn.LocalResponseNorm, which export writes as ten operators.

    x / (k + alpha * avg_pool3d(pad(x * x)))^beta
    """

    def name(n: Any) -> str:
        target = getattr(n, "target", None)
        schema = getattr(target, "_schema", None)
        return schema.name.removeprefix("aten::") if schema is not None else ""

    def step(n: Any, op: str) -> Any:
        return n.args if name(n) == op else None

    if not (top := step(node, "div")) or not (power := step(top[1], "pow")):
        return None
    if not (plus := step(power[0], "add")) or not (times := step(plus[0], "mul")):
        return None
    inner = times[0]
    moved = {"view", "squeeze", "unsqueeze", "clone", "_unsafe_view"}
    while name(inner) in moved:
        inner = inner.args[0]
    if not (pooled := step(inner, "avg_pool3d")):
        return None
    inner = pooled[0]
    while name(inner) in moved | {"constant_pad_nd"}:
        inner = inner.args[0]
    square = step(inner, "mul")
    if not square or square[0] is not top[0] or square[1] is not top[0]:
        return None
    channels = top[0].meta["val"].shape[1]
    attrs = {"size": pooled[1][0], "alpha": times[1], "beta": power[1], "k": plus[1]}
    return top[0], attrs | {"channels": channels}


def _fold_batch_norm(graph: Graph) -> Graph:
    """Fold each affine into the convolution or linear layer that feeds only it.

    w' = w * scale per output channel, b' = b * scale + shift. A convolution whose weights are
    shared with another keeps them, and its affine stays.
    """
    uses: dict[str, int] = {}
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for param in node.params.values():
            uses[param] = uses.get(param, 0) + 1
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    params = dict(graph.params)
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(i, i) for i in node.inputs))
        source = nodes.get(node.inputs[0]) if node.inputs else None
        if (
            node.op != "affine"
            or source is None
            or source.op not in ("conv", "linear")
            or readers[source.name] != 1
            or any(uses[p] != 1 for p in source.params.values())
        ):
            nodes[node.name] = node
            continue
        scale, shift = params[node.params["scale"]], params[node.params["shift"]]
        weight = params[source.params["weight"]]
        old_bias = params.get(source.params.get("bias", ""), torch.zeros_like(shift))
        bias_name = source.params.get("bias", f"{source.name}.bias")
        params[source.params["weight"]] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        params[bias_name] = old_bias * scale + shift
        nodes[source.name] = replace(source, params={**source.params, "bias": bias_name})
        renamed[node.name] = source.name
        readers[source.name] = readers.get(node.name, 0)
        uses[bias_name] = 1
    used = {p for node in nodes.values() for p in node.params.values()}
    kept = {name: tensor for name, tensor in params.items() if name in used}
    output = renamed.get(graph.output, graph.output)
    return Graph(tuple(nodes.values()), kept, output)
