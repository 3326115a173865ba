"""A verified package as a block of bytes for compiled code (``engine.missions.blocks``)."""

from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import mask
from distillnet.engine import Layout, mission_block
from distillnet.engine.missions.arranging import arranged_slots
from distillnet.engine.taps import inputs_of_layers
from distillnet.errors import InputError
from distillnet.graph.channels import analyse
from distillnet.missions.packages.changes import changed_layers
from distillnet.missions.packages.device import Opened
from distillnet.missions.packages.graphs import Base
from distillnet.missions.packages.package import graph_of, keep_of

__all__ = ["block_of_package"]


def block_of_package(package: Opened, layout: Layout, base: Base | None = None) -> bytes:
    """The block of a package whose signature holds, for code of this layout.

    Args:
        base: the shared weights. A package that changes weights is told by them; for any other,
            they tell which inputs of layers are always zero, which the code then leaves out.

    Raises:
        InputError: it is of another network or input size, splits layers, changes weights and there
            is no ``base``, has a score for the unknown, or no number that code would take.
    """
    contents, what = package.contents, package.path
    if contents.weights_sha256 != layout.original_sha256:
        raise InputError(
            f"{what} is a mission of {contents.model}, whose weights are not those of this code; "
            "expected one of the same network. Export the folder from a run of it"
        )
    how = contents.preprocessing
    if (len(how.mean), *how.input_size) != layout.input:
        raise InputError(
            f"{what} takes images of {(len(how.mean), *how.input_size)}, this code of "
            f"{layout.input}; expected one input size for all missions. Export the folder at it"
        )
    if contents.unknown:
        raise InputError(
            f"{what} has a score for unknown images; expected one for each of its classes, for "
            "code that several missions share. Pack it without --with-unknown, or export the run "
            "as C of its own"
        )
    changed = [name for name, tensor in contents.tensors.items() if tensor.coding != "same"]
    if changed and base is None:
        raise InputError(
            f"{what} changes {len(changed)} tensors of the shared weights; name these with --base, "
            "the file that `mission pack --base` wrote"
        )
    if contents.serial < 1:
        raise InputError(
            f"{what} has the number 0, and code takes larger numbers than the one that it holds; "
            "pack it with --serial 1 or more"
        )
    keep = keep_of(contents)
    refits, alive, slots = {}, None, None
    if base is not None:
        graph = graph_of(contents, base, str(what))
        sites = {node.name for node in base.graph.nodes}
        outputs = tuple(c.index for c in contents.classes)
        plan = Plan({site: bits for site, bits in keep.items() if site in sites}, outputs)
        refits = changed_layers(base.graph, plan, graph.params, str(what))
        alive = inputs_of_layers(mask(base.graph, plan), {})
        channels = analyse(base.graph)
        gone = removed_classes(channels, plan)
        kept = {layer: ~gone[channels.of[layer]] for layer in refits}
        own = {layer for layer, refit in refits.items() if refit.weight is not None}
        slots = arranged_slots(layout, base.graph, kept, own)
    return mission_block(
        layout,
        contents.name,
        [c.name for c in contents.classes],
        [c.index for c in contents.classes],
        {site: bits.numpy() for site, bits in keep.items()},
        contents.serial,
        refits=refits,
        alive=alive,
        slots=slots,
    )
