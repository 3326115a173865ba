"""Load a ``torch.export`` programme from an untrusted file.

``torch.export.load`` must not see such a file. As of PyTorch 2.15 it unpickles weights, constants
and sample inputs without restriction and evaluates symbolic expressions and guards as Python
source: the hostile files of tests/models/test_programs.py run code that way. It also imports
modules that a tree specification names, looks functions up by dotted name (``torch.os.system`` is
one, which only a later check rejects), loads compiled libraries and writes names into generated
source. And it calls whatever operator a file names, some of which read and write where their
arguments point.

So a file is read here: ``archive`` takes its records apart, ``schema`` reads the graph into calls
of a closed set of ``operators``, ``sizes`` works out what they would make before anything is
computed, and a new module is made of what is left.
"""

import operator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from distillnet.errors import InputError
from distillnet.models.programs.archive import Archive, Refused, read_archive
from distillnet.models.programs.schema import Recipe, read_document
from distillnet.models.programs.sizes import check_sizes, resolve

__all__ = ["Program", "load_program"]


@dataclass(frozen=True)
class Program:
    """An exported network as a callable module, and its image input."""

    module: nn.Module
    input_shape: tuple[int, int, int]  # (C, H, W); a size left open is that of the example


def load_program(path: Path) -> Program:
    """Load ``path``, written by ``torch.export.save`` of PyTorch 2.9 or later, without trusting it.

    The module's parameters, buffers and their names are those of the file. Raises InputError for a
    file that is missing or damaged, and for a programme that holds more than weights and calls of
    the operators that distillnet follows, from one tensor to one tensor.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give a programme saved by torch.export.save.")
    # Every failure of a reader below means that the file is not what it should be.
    try:
        archive = read_archive(path)
        recipe = read_document(archive.document)
        check_sizes(recipe, _named(recipe, archive))
        return Program(_module(recipe, archive), recipe.image_shape)
    except Refused as refused:
        raise InputError(
            f"{path} is refused: {refused}. Expected a programme with one image tensor in and one"
            " score tensor out, made of tensors and operators that distillnet follows; export it"
            " again with torch.export.export(model.eval(), (images,), dynamic_shapes=({0:"
            " torch.export.Dim('batch')},)) and torch.export.save of PyTorch 2.9 or later."
        ) from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as a torch.export programme: {reason[:200]}. Expected a whole"
            " file written by torch.export.save of PyTorch 2.9 or later; export the network again."
        ) from error


def _named(recipe: Recipe, archive: Archive) -> dict[str, Tensor]:
    """All tensors of a programme by the names of their values."""
    kept = {**archive.constants, **archive.weights}
    names = {**recipe.parameters, **recipe.buffers, **recipe.constants}
    if missing := [name for name in names.values() if name not in kept]:
        raise Refused(f"it holds no tensor {missing[0]!r}")
    return {value: kept[name] for value, name in names.items()}


def _module(recipe: Recipe, archive: Archive) -> fx.GraphModule:
    """The calls as a module whose tensors lie where they lay in the exported one."""
    root = _tensors(recipe, archive)
    graph = fx.Graph()
    nodes: dict[str, Any] = {recipe.image: graph.placeholder("images")}
    for names in (recipe.parameters, recipe.buffers, recipe.constants):
        for value, name in names.items():
            nodes[value] = graph.get_attr(name)
    for call in recipe.calls:
        args = tuple(resolve(list(call.args), nodes.__getitem__))
        kwargs = {k: resolve(v, nodes.__getitem__) for k, v in call.kwargs.items()}
        # Named by their place: nothing of the file gets into generated source.
        node = graph.create_node("call_function", call.function, args, kwargs)
        if not call.many:
            nodes[call.results[0]] = node
            continue
        for i, result in enumerate(call.results):
            nodes[result] = graph.call_function(operator.getitem, (node, i))
    graph.output(nodes[recipe.output])
    module = fx.GraphModule(root, graph)
    for name, tensor in _constants(archive).items():  # PyTorch 2.9 makes all buffers persistent
        if name not in recipe.parameters.values():
            path, _, last = name.rpartition(".")
            module.get_submodule(path).register_buffer(last, tensor, persistent=False)
    return module.eval()


def _constants(archive: Archive) -> dict[str, Tensor]:
    """Tensors that belong to no state dict."""
    return {n: t for n, t in archive.constants.items() if n not in archive.weights}


def _tensors(recipe: Recipe, archive: Archive) -> nn.Module:
    """A tree of modules that holds the file's tensors under their names, shared ones once."""
    root = nn.Module()
    parameters: dict[int, nn.Parameter] = {}
    trained = set(recipe.parameters.values())
    for name, tensor in [*archive.weights.items(), *_constants(archive).items()]:
        *path, last = name.split(".")
        owner = reduce(_child, path, root)
        if name in trained:
            shared = parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=False))
            owner.register_parameter(last, shared)
        else:
            owner.register_buffer(last, tensor, persistent=name in archive.weights)
    return root


def _child(module: nn.Module, name: str) -> nn.Module:
    if name not in module._modules:
        module.add_module(name, nn.Module())
    child = module._modules[name]
    assert child is not None
    return child
