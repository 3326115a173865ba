"""From a PyTorch module to our graph, by way of torch.export.

torch.export gives a flat list of ATen operators. ``builder`` walks it and keeps track of data
movement, ``aten`` is the table of handlers, which lie in ``layers``, ``norms``, ``pointwise`` and
``movement`` and turn operators into nodes; ``patterns`` recognises what export has taken apart and
folds batch norm.

An operator that is not in the table is refused by name. Nothing is guessed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from distillnet.errors import UnsupportedError
from distillnet.graph.capture.aten import TABLE
from distillnet.graph.capture.builder import Builder, example_input
from distillnet.graph.capture.patterns import fold_batch_norm
from distillnet.graph.graph import Graph, run
from distillnet.images.preprocessing import Size
from distillnet.models import Model

__all__ = ["capture", "capture_model", "missing_operators"]

# Kept whole by the export, for they are one layer to us; everything else becomes core ATen.
_WHOLE = frozenset(
    {
        "_prelu_kernel",
        "adaptive_avg_pool2d",
        "celu",
        "conv2d",
        "group_norm",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "instance_norm",
        "layer_norm",
        "linear",
        "max_pool2d",
        "mish",
        "pad",
        "silu",
        "softplus",
    }
)


def capture_model(model: Model, size: Size | None = None, *, like: Graph | None = None) -> Graph:
    """The graph of a model at an input size (H, W), its own by default; raises as ``capture``.

    Args:
        like: the model's graph at another size, which makes it a matter of a moment for a network
            that does the same at all sizes.
    """
    how = model.preprocessing
    size = size or how.input_size
    if like is not None and (graph := _at_size(model.module, like, size)) is not None:
        return graph
    return capture(model.module, size, channels=len(how.mean))


def capture(module: nn.Module, input_size: Size, *, channels: int = 3) -> Graph:
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
    with _in_inference_mode(module):
        program = _export(module, (channels, *input_size))
        with torch.no_grad():
            graph = Builder(program, TABLE).build()
            graph = fold_batch_norm(graph)
            _verify(module, graph, example_input(program))
    return graph


def _at_size(module: nn.Module, graph: Graph, size: Size) -> Graph | None:
    """A module's graph at another input size, its weights shared; None if it is not the same there.

    It is, where it answers as the module does: one that pads or pools by its input's size does not.
    """
    first = next(iter(graph.params.values()))
    x = torch.zeros(1, graph.input.shape[0], *size, dtype=first.dtype, device=first.device)
    shapes = {graph.input.name: tuple(x.shape[1:])}

    def observe(name: str, y: Tensor) -> None:
        shapes[name] = tuple(y.shape[1:])

    with _in_inference_mode(module), torch.no_grad():
        try:
            run(graph, {graph.input.name: x}, observe=observe)
            nodes = tuple(replace(node, shape=shapes[node.name]) for node in graph.nodes)
            resized = replace(graph, nodes=nodes)
            _verify(module, resized, x)
        except (RuntimeError, ValueError, IndexError, KeyError, UnsupportedError):
            return None
    return resized


def missing_operators(module: nn.Module, input_size: Size, *, channels: int = 3) -> tuple[str, ...]:
    """Names of the ATen operators that a network applies to activations and nothing here follows.

    None may be missing and ``capture`` still refuse the form that one is used in. The operators
    that LRN is written in are among them.

    >>> class Sorted(nn.Module):
    ...     def forward(self, x):
    ...         return x.mean((2, 3)).sort(1).values
    >>> missing_operators(Sorted(), (8, 8))
    ('sort',)
    """
    with _in_inference_mode(module):
        program = _export(module, (channels, *input_size))
    follows: set[fx.Node] = set()
    missing: dict[str, None] = {}
    for node in program.graph.nodes:
        if node.name in program.graph_signature.user_inputs or follows & set(node.all_input_nodes):
            follows.add(node)
            schema = getattr(node.target, "_schema", None)
            name = schema.name.removeprefix("aten::").rstrip("_") if schema else ""
            if name and name not in TABLE:
                missing[name] = None
    return tuple(missing)


@contextmanager
def _in_inference_mode(module: nn.Module) -> Iterator[None]:
    """All of a module in eval mode, and as it was afterwards."""
    modes = {part: part.training for part in module.modules()}
    for part in modes:  # not module.eval(), which loaded programmes refuse
        part.training = False
    try:
        yield
    finally:
        for part, was_training in modes.items():  # a part may be frozen in a net that is not
            part.training = was_training


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


def _verify(module: nn.Module, graph: Graph, example: Tensor) -> None:
    """Compare graph and module on noise: a translation that is off must never go unnoticed.

    Args:
        example: an input, of whose shape the noise is.
    """
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
    # A network that is NaN on noise is the models module's to refuse.
    if not difference <= 1e-3 and not want.isnan().any():
        raise UnsupportedError(
            f"the captured graph differs from the network by {difference:.2g} of its output's "
            "range; expected agreement to rounding. This is a bug in distillnet: please report "
            "the network's definition."
        )
