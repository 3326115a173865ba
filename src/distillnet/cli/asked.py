"""A network and its images, as options name them: what `distill` and its like begin with."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from distillnet.classes import Mission
from distillnet.cli.checks import check_apart
from distillnet.cli.options import ImageOptions, NetworkOptions

if TYPE_CHECKING:
    from distillnet.job.partition import Images
    from distillnet.models import Model

__all__ = ["asked_for"]


def asked_for(
    model: str,
    network: NetworkOptions,
    images: ImageOptions,
    classes: str | Mission | None,
    out: Path | None,
) -> "Callable[[int], tuple[Model, Mission, Images]]":
    """Check all that can be wrong without torch; what is returned loads the rest, for a seed.

    Args:
        out: what will be written, which must not lie among the images.

    Raises:
        InputError: a file, a folder or a class is not there.
    """
    images.check()
    if out is not None:
        check_apart(out, (images.data, images.val, images.search))
    table = network.check(model)
    found = None if table is None else images.find(classes, table)

    def load(seed: int) -> "tuple[Model, Mission, Images]":
        loaded = network.load(model)
        there = found or images.find(classes, loaded.classes)
        return loaded, there.mission, images.split(there, seed)

    return load
