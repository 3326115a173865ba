"""A verified package as a block of bytes for compiled code (``engine.missions.blocks``)."""

from distillnet.engine import Layout, mission_block
from distillnet.errors import InputError
from distillnet.missions.packages.device import Opened
from distillnet.missions.packages.package import keep_of

__all__ = ["block_of_package"]


def block_of_package(package: Opened, layout: Layout) -> bytes:
    """The block of a package whose signature holds, for code of this layout.

    Raises:
        InputError: it is of another network or input size, changes weights, has a score for the
            unknown, or no number that code would take.
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
    changed = [name for name, tensor in contents.tensors.items() if tensor.coding != "same"]
    if changed or contents.unknown:
        why = f"changes {len(changed)} tensors" if changed else "has a score for unknown images"
        raise InputError(
            f"{what} {why}; expected bitmaps alone, for code whose missions share all weights. "
            "Distill with --method paper, or export the run as C of its own"
        )
    if contents.serial < 1:
        raise InputError(
            f"{what} has the number 0, and code takes larger numbers than the one that it holds; "
            "pack it with --serial 1 or more"
        )
    keep = {site: bits.numpy() for site, bits in keep_of(contents).items()}
    return mission_block(
        layout,
        contents.name,
        [c.name for c in contents.classes],
        [c.index for c in contents.classes],
        keep,
        contents.serial,
    )
